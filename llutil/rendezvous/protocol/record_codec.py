"""Records as JSON, and back, with nothing taken on trust: a store is shared, and versions differ.

One JSON object a record: ``{"version": 1, "kind": "member", ...}`` and the record's fields by name.
A field that a newer version has added is ignored; whatever changes a record's meaning raises
``VERSION``. This module may import nothing but the standard library, msgspec, ``llutil.errors`` and
the room's records.
"""

from __future__ import annotations

import json
from typing import Any, TypeVar

import msgspec

from llutil.errors import ConfigError
from llutil.rendezvous.protocol.records import (
    Assignment,
    Marker,
    Member,
    Record,
    Report,
    Verdict,
)

__all__ = ["VERSION", "decode", "decode_as", "encode"]

VERSION = 1
"""Raised when a record changes so that an older node would misread it."""

_KINDS: dict[str, type[Record]] = {
    "member": Member,
    "assignment": Assignment,
    "report": Report,
    "verdict": Verdict,
    "marker": Marker,
}
_NAMES: dict[type[Any], str] = {kind: name for name, kind in _KINDS.items()}

R = TypeVar("R", bound=Record)


def encode(record: Record) -> bytes:
    """``record`` as one JSON object."""
    body = {"version": VERSION, "kind": _NAMES[type(record)], **msgspec.to_builtins(record)}
    return json.dumps(body, separators=(",", ":"), ensure_ascii=True).encode()


def decode(key: str, value: bytes) -> Record:
    """The record in ``value``. ``key`` says where it was found, for the error's text.

    :raises ConfigError: it is no record of ours, or one of another version.
    """
    try:
        body = json.loads(value)
    except (ValueError, RecursionError) as error:
        raise _foreign(key, value, "not JSON") from error
    if not isinstance(body, dict) or "version" not in body or "kind" not in body:
        raise _foreign(key, value, "not a JSON object with 'version' and 'kind'")
    version, kind = body.pop("version"), body.pop("kind")
    if version != VERSION:
        raise ConfigError(
            f"the record {key!r} is of format {version!r}, and this node speaks {VERSION}: run the same version "
            "of this package on all nodes, or use another run id"
        )
    record_type = _KINDS.get(kind) if isinstance(kind, str) else None
    if record_type is None:
        raise _foreign(key, value, f"of unknown kind {kind!r}")
    try:
        return msgspec.convert(body, type=record_type)
    except msgspec.ValidationError as error:
        raise _foreign(key, value, f"no sound {kind}: {error}") from error


def decode_as(wanted: type[R], key: str, value: bytes) -> R:
    """The record in ``value``, which must be a ``wanted``.

    :raises ConfigError: it is not.
    """
    record = decode(key, value)
    if not isinstance(record, wanted):
        raise _foreign(key, value, f"a {_NAMES[type(record)]}, where a {_NAMES[wanted]} belongs")
    return record


def _foreign(key: str, value: bytes, what: str) -> ConfigError:
    return ConfigError(
        f"the record {key!r} in the ledger is {what}; found {value[:80]!r}. Something else writes under this "
        "run id: use another run id or another namespace. Nothing was changed"
    )
