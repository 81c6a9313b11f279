"""Names of jobs: readable, legal everywhere, and never the same for two different jobs.

A name is a slug and a hash. The slug is for people: odd characters replaced, each part cut to
length, so two jobs may share it. The hash is over the exact values in an unambiguous encoding, so
two jobs never share a name. Names hold only ``[A-Za-z0-9._-]``, at most 128 characters, and begin
with a letter, a digit or ``_``: legal as a rendezvous id of every backend, a directory name and an
etcd key. This module may import nothing but the standard library.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Sequence

__all__ = ["MAX_LENGTH", "job_name"]

MAX_LENGTH = 128
"""Characters in the longest name."""

_PART_LENGTH = 30
_HASH_BYTES = 10  # 80 bits: 16 characters of base32, and no collision in any real deployment
_ILLEGAL = re.compile(r"[^A-Za-z0-9._-]+")


def job_name(readable: Sequence[str], exact: Sequence[str | int | None]) -> str:
    """The name of the job that the values ``exact`` identify, beginning with what is
    ``readable``.
    """
    # JSON quotes what it holds, so no separator inside a value can make two lists look the same.
    digest = hashlib.blake2b(json.dumps(list(exact)).encode("ascii"), digest_size=_HASH_BYTES)
    suffix = "-" + base64.b32encode(digest.digest()).decode("ascii").rstrip("=").lower()
    slug = ".".join(_ILLEGAL.sub("-", part)[:_PART_LENGTH].strip(".-") for part in readable)
    slug = slug.strip(".-")[: MAX_LENGTH - len(suffix)].strip(".-") or "job"
    return slug + suffix
