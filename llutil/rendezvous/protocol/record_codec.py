"""Records as JSON, and back, with nothing taken on trust: a store is shared, and versions differ.

One JSON object a record: ``{"version": 2, "kind": "member", ...}`` and the record's fields by name.
Fields that this version does not know are ignored: a newer node may say more. The types in
``records`` say what is refused. This module may import nothing but the standard library, msgspec,
``llutil.errors`` and the room's records.
"""

from __future__ import annotations

import json
from typing import TypeVar

from msgspec import Struct, convert, to_builtins

from llutil.errors import ConfigError
from llutil.rendezvous.protocol.records import Record

__all__ = ["VERSION", "decode", "decode_as", "encode"]

VERSION = 2
"""Raised when a record changes so that an older node would misread it."""

R = TypeVar("R", bound=Record)


class _Format(Struct):
    """What every version of a record has."""

    version: int


def encode(record: Record) -> bytes:
    """``record`` as one JSON object."""
    # The standard library writes it: a rank's text may hold lone surrogates, which msgspec refuses.
    return json.dumps({"version": VERSION} | to_builtins(record), separators=(",", ":")).encode()


def decode(key: str, value: bytes) -> Record:
    """The record in ``value``. ``key`` says where it was found, for the error's text.

    :raises ConfigError: it is no record of ours, or one of another version.
    """
    try:
        body = json.loads(value)
        version = convert(body, _Format).version
        if version == VERSION:
            record: Record = convert(body, Record)
            return record
    except (ValueError, RecursionError) as error:  # msgspec's errors are ValueErrors
        raise _foreign(key, value, f"no JSON record of this package ({error})") from error
    raise ConfigError(
        f"the record {key!r} is of format {version}, and this node speaks {VERSION}: "
        "run the same version of this package on all nodes, or use another run id"
    )


def decode_as(wanted: type[R], key: str, value: bytes) -> R:
    """The record in ``value``, which must be a ``wanted``.

    :raises ConfigError: it is not.
    """
    record = decode(key, value)
    if not isinstance(record, wanted):
        kind, other = wanted.__name__.lower(), type(record).__name__.lower()
        raise _foreign(key, value, f"of kind {other!r}, where {kind!r} belongs")
    return record


def _foreign(key: str, value: bytes, what: str) -> ConfigError:
    return ConfigError(
        f"the record {key!r} in the ledger is {what}; found {value[:80]!r}. Something else writes "
        "under this run id: use another run id or another namespace. Nothing was changed"
    )
