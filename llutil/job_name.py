"""Makes names for jobs that are valid wherever a job needs a name, and tells whether a text is one.

A made name is a slug and a hash. The slug is for people: characters that are not allowed are
replaced and each part is cut to length, so two jobs may have the same slug. The hash is over the
exact values, so two jobs never have the same name. This module may import only the standard
library: parsing a DAG imports it.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import uuid
from collections.abc import Sequence

__all__ = ["LONGEST_ID", "MAX_LENGTH", "is_by_chance", "is_id", "job_name", "name_by_chance"]

LONGEST_ID = 200
"""Characters in the longest name that anybody may give."""
MAX_LENGTH = 128
"""Characters in the longest name that is made here."""

_PART_LENGTH = 30
# 80 bits: 16 characters of base32, and no collision in any real deployment.
_HASH_BYTES = 10
_ILLEGAL = re.compile(r"[^A-Za-z0-9._-]+")
_ID = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.~:+-]*")
_BY_CHANCE = re.compile(r"run-[0-9a-f]{32}|[A-Za-z0-9._-]+\+[0-9a-f]{10}")


def job_name(readable: Sequence[str], exact: Sequence[str | int | None]) -> str:
    """A slug of the texts ``readable``, and a hash of the values ``exact``."""
    # JSON quotes each value, so two different lists never have the same encoding.
    digest = hashlib.blake2b(json.dumps(list(exact)).encode("ascii"), digest_size=_HASH_BYTES)
    suffix = "-" + base64.b32encode(digest.digest()).decode("ascii").rstrip("=").lower()
    slug = ".".join(_ILLEGAL.sub("-", part)[:_PART_LENGTH].strip(".-") for part in readable)
    slug = slug.strip(".-")[: MAX_LENGTH - len(suffix)].strip(".-") or "job"
    return slug + suffix


def is_id(text: str) -> bool:
    """Whether ``text`` names a job as it is: it can be a rendezvous id, a key and a folder."""
    return len(text) <= LONGEST_ID and _ID.fullmatch(text) is not None


def name_by_chance(readable: str = "") -> str:
    """A name that nobody else knows, and that no other launch gets. With a text ``readable`` it is
    short and begins with that: people tell such names apart, and type them.
    """
    slug = _ILLEGAL.sub("-", readable)[:_PART_LENGTH].strip(".-")
    return f"{slug}+{uuid.uuid4().hex[:10]}" if slug else f"run-{uuid.uuid4().hex}"


def is_by_chance(name: str) -> bool:
    """Whether ``name_by_chance`` made it."""
    return _BY_CHANCE.fullmatch(name) is not None
