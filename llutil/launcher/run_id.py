"""Every id that a job has: of a task of Airflow, of a gang, of a launch outside Airflow.

An id is a slug and a hash. The slug is for people: odd characters are replaced, each part is cut to
length, so two jobs may share it. The hash is over the exact values in an unambiguous encoding, so
two jobs never share an id. Ids hold only ``[A-Za-z0-9._-]``, at most 128 characters, and begin with
a letter, a digit or ``_``: legal as a rendezvous id of every backend, a directory name and an etcd
key. Airflow's own identifiers are not: run ids hold ``+`` and ``:``, and under a changed
``allowed_run_id_pattern`` anything, ``/`` included; any of them may be 250 characters long.

This module may import nothing but the standard library: a DAG that is parsed imports it.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

__all__ = ["MAX_LENGTH", "RUN_ID", "TaskKey", "deduce_run_id", "job_name"]

RUN_ID = "LLUTIL_RUN_ID"
"""The environment variable that names a run whose configuration does not."""

MAX_LENGTH = 128
"""Characters in the longest id."""

_PART_LENGTH = 30
# 80 bits: 16 characters of base32, and no collision in any real deployment.
_HASH_BYTES = 10
_ILLEGAL = re.compile(r"[^A-Za-z0-9._-]+")
_AIRFLOW = (
    "AIRFLOW_CTX_DAG_ID",
    "AIRFLOW_CTX_TASK_ID",
    "AIRFLOW_CTX_DAG_RUN_ID",
    "AIRFLOW_CTX_TRY_NUMBER",
)


@dataclass(frozen=True, slots=True)
class TaskKey:
    """One task instance of Airflow, whichever try of it runs. ``map_index`` is -1 for a task that
    is not mapped.

    ``run_after`` tells a DAG run from one that was deleted and had the same id: it is when the run
    was triggered, or due, and no clearing changes it (Airflow 3.3).
    """

    dag_id: str
    task_id: str
    run_id: str
    map_index: int = -1
    run_after: str = ""

    def slug(self, deployment: str = "") -> str:
        """A name that every try of this task instance shares: for what one try leaves to the next
        on a host.

        Several deployments may be on that host, and have tasks of the same ids.
        """
        return self._name((), deployment)

    def rendezvous_id(self, try_number: int, attempt: int) -> str:
        """The run id of one launch: ``attempt`` counts the launches inside the Airflow try
        ``try_number``.
        """
        return self._name((try_number, attempt), self.run_after)

    def gang_id(self) -> str:
        """The run id of the job of which this is one node: the same for all its nodes, their tries
        and reruns.
        """
        exact = [self.dag_id, self.task_id, self.run_id, self.run_after, "gang"]
        return job_name([self.dag_id, self.task_id, self.run_id], exact)

    def _name(self, launch: tuple[int, ...], more: str) -> str:
        readable = [self.dag_id, self.task_id, self.run_id]
        if self.map_index >= 0:
            readable.append(f"m{self.map_index}")
        readable += [f"{letter}{number}" for letter, number in zip("ta", launch, strict=False)]
        exact: list[str | int | None] = [self.dag_id, self.task_id, self.run_id, self.map_index]
        return job_name(readable, [*exact, *launch, more])


def deduce_run_id(environ: Mapping[str, str]) -> str:
    """A run id for a job that is started in ``environ`` and was given none; never empty.

    ``LLUTIL_RUN_ID`` is taken as it is. Airflow's variables of a running task (measured with
    Airflow 3.3.2) identify a try of a task; they do not carry the map index, so mapped tasks that
    share a rendezvous store must be given run ids by other means, as the operator does. Else the
    id is a random one.
    """
    given = environ.get(RUN_ID)
    if given:
        return given
    values = [environ.get(name, "") for name in _AIRFLOW]
    if all(values[:3]):
        return job_name(values, values)
    return f"run-{uuid.uuid4().hex}"


def job_name(readable: Sequence[str], exact: Sequence[str | int | None]) -> str:
    """The id of what the values ``exact`` identify, beginning with what is ``readable``."""
    # JSON quotes what it holds, so no separator inside a value can make two lists look the same.
    digest = hashlib.blake2b(json.dumps(list(exact)).encode("ascii"), digest_size=_HASH_BYTES)
    suffix = "-" + base64.b32encode(digest.digest()).decode("ascii").rstrip("=").lower()
    slug = ".".join(_ILLEGAL.sub("-", part)[:_PART_LENGTH].strip(".-") for part in readable)
    slug = slug.strip(".-")[: MAX_LENGTH - len(suffix)].strip(".-") or "job"
    return slug + suffix
