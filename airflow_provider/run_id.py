"""Names for one task instance's job: the rendezvous id, and a name that stays the same through its tries.

A name is a readable slug and a hash. The slug is for people: cut to length, odd characters replaced,
so two jobs may share it. The hash is over the exact values in an unambiguous encoding, so two jobs
never share a name. Names hold only ``[A-Za-z0-9._-]``, at most 128 characters, and begin with a letter,
a digit or ``_``: legal as a rendezvous id of every backend, a directory name and an etcd key.

Airflow's own identifiers are none of that: run ids may hold ``+``, ``:``, and under a changed
``allowed_run_id_pattern`` anything, ``/`` included. This module imports nothing but the standard library.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["MAX_LENGTH", "TaskKey"]

MAX_LENGTH = 128
"""Characters in the longest name."""

_PART_LENGTH = 30
_HASH_BYTES = 10  # 80 bits: 16 characters of base32, and no collision in any real deployment
_ILLEGAL = re.compile(r"[^A-Za-z0-9._-]+")


@dataclass(frozen=True, slots=True)
class TaskKey:
    """One task instance, whichever try of it runs. ``map_index`` is -1 for a task that is not mapped."""

    dag_id: str
    task_id: str
    run_id: str
    map_index: int = -1

    @classmethod
    def of(cls, context: Mapping[str, Any]) -> TaskKey:
        """The key of the task instance that ``context`` belongs to."""
        ti = context["ti"]
        map_index = -1 if ti.map_index is None else ti.map_index
        return cls(ti.dag_id, ti.task_id, ti.run_id, map_index)

    def slug(self) -> str:
        """A name that every try of this task instance shares: for what one try leaves to the next."""
        return self._name(())

    def rendezvous_id(self, try_number: int, attempt: int) -> str:
        """The name of one launch: ``attempt`` counts the launches inside the Airflow try ``try_number``."""
        return self._name((try_number, attempt))

    def _name(self, launch: tuple[int, ...]) -> str:
        parts = [self.dag_id, self.task_id, self.run_id]
        if self.map_index >= 0:
            parts.append(f"m{self.map_index}")
        parts += [f"{letter}{number}" for letter, number in zip("ta", launch, strict=False)]
        # JSON quotes what it holds, so no separator inside an identifier can make two lists look the same.
        exact = json.dumps([self.dag_id, self.task_id, self.run_id, self.map_index, *launch])
        digest = hashlib.blake2b(exact.encode("ascii"), digest_size=_HASH_BYTES).digest()
        suffix = "-" + base64.b32encode(digest).decode("ascii").rstrip("=").lower()
        readable = ".".join(_ILLEGAL.sub("-", part)[:_PART_LENGTH].strip(".-") for part in parts)
        readable = readable.strip(".-")[: MAX_LENGTH - len(suffix)] or "job"
        return readable + suffix
