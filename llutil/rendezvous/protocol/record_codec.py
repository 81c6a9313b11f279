"""Encodes records as JSON and decodes them. Everything that is read is checked: others may write
into the same store, and nodes may run other versions.

A record is one JSON object: ``{"version": 2, "kind": "member", ...}`` and the record's fields by
name. Unknown fields are ignored, since a newer node may write more. The types in ``records`` decide
which values are refused. This module may import nothing but the standard library, msgspec,
``llutil.errors`` and the room's records.
"""

from __future__ import annotations

import json

from msgspec import Struct, convert, to_builtins

from llutil.errors import ConfigError
from llutil.rendezvous.protocol.records import Record

__all__ = ["VERSION", "ForeignRecord", "decode", "encode", "short"]

VERSION = 2
"""Increased when a record changes in such a way that an older node would misread it."""
_LONGEST = 200
"""Characters of a foreign text that a message shows."""


class ForeignRecord(ConfigError):
    """What lies under ``key`` is no record that this version can read.

    ``what`` says so in a few words. ``version`` is its format if it is a record of this package in
    another format; else None.
    """

    def __init__(self, key: str, what: str, version: int | None = None) -> None:
        self.key, self.what, self.version = key, short(what), version
        advice = "Something else writes under this run id: use another run id or another namespace"
        if version is not None:
            advice = "Run the same version of this package on all nodes, or use another run id"
        super().__init__(
            f"the record {short(key)!r} in the ledger {self.what}. {advice}. Nothing was changed"
        )

    def __reduce__(  # type: ignore[override]  # made of other values than its parent
        self,
    ) -> tuple[type[ForeignRecord], tuple[str, str, int | None]]:
        return type(self), (self.key, self.what, self.version)


def short(text: str) -> str:
    """``text``, or as much of it as fits into a line: others may write texts of any length."""
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 4]} ..."


class _Versioned(Struct):
    """The field that records of every version have."""

    version: int


# msgspec reads the annotations of classes at their first use, which takes milliseconds: better now
# than in the middle of a round.
convert(None, Record | None)


def encode(record: Record) -> bytes:
    """``record`` as one JSON object."""
    # Not msgspec's encoder: it refuses lone surrogates, which a rank's error text may contain.
    return json.dumps({"version": VERSION} | to_builtins(record), separators=(",", ":")).encode()


def decode(key: str, value: bytes) -> Record:
    """The record in ``value``, which was found under ``key``.

    :raises ForeignRecord: it is not a record of this package, or has another version.
    """
    try:
        body = json.loads(value)
        version = convert(body, _Versioned).version
        if version == VERSION:
            record: Record = convert(body, Record)
            return record
    except (ValueError, RecursionError) as error:  # msgspec's errors are ValueErrors
        # Without the value, which may be another program's secret.
        raise ForeignRecord(key, f"is no JSON record of this package ({error})") from error
    what = f"has format {version}, and this node reads format {VERSION} only"
    raise ForeignRecord(key, what, version)
