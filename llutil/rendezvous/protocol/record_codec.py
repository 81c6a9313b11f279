"""Records as JSON, and back, with nothing taken on trust: a store is shared, and versions differ.

One JSON object a record: ``{"version": 1, "kind": "member", ...}`` and the record's fields by name.
Unknown fields are refused, since a record that means more than we understand must not be acted on.
This module may import nothing but the standard library, ``llutil.errors``, ``llutil.failure`` and
the room's records.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import MISSING, asdict, fields
from typing import Any, TypeVar

from llutil.errors import ConfigError
from llutil.failure import Failure, FailureClass
from llutil.rendezvous.protocol.records import (
    Assignment,
    Cause,
    Marker,
    Member,
    Record,
    Report,
    ReportKind,
    Seat,
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
    body = {"version": VERSION, "kind": _NAMES[type(record)], **asdict(record)}
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
        return _built(record_type, body)
    except (TypeError, ValueError) as error:
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


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"wanted text, found {value!r}")
    return value


def _number(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise TypeError(f"wanted a whole number from 0, found {value!r}")
    return value


def _status(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"wanted a whole number, found {value!r}")
    return value


def _flag(value: object) -> bool:
    if not isinstance(value, bool):
        raise TypeError(f"wanted true or false, found {value!r}")
    return value


def _list_of(read: Callable[[Any], Any]) -> Callable[[Any], tuple[Any, ...]]:
    def read_list(value: object) -> tuple[Any, ...]:
        if not isinstance(value, list):
            raise TypeError(f"wanted a list, found {value!r}")
        return tuple(read(item) for item in value)

    return read_list


def _or_none(read: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda value: None if value is None else read(value)


def _seat(value: object) -> Seat:
    if not isinstance(value, dict):
        raise TypeError(f"wanted a seat, found {value!r}")
    return Seat(**_checked(Seat, value))


def _failure(value: object) -> Failure:
    if not isinstance(value, dict):
        raise TypeError(f"wanted a failure, found {value!r}")
    if value.get("failure_class") is None:
        raise TypeError("wanted a failure with its failure_class")
    return Failure(**_checked(Failure, value))


# By field name: a name means the same in every record.
_READERS: Mapping[str, Callable[[Any], Any]] = {
    "address": _text,
    "away": _list_of(_text),
    "by": _text,
    "cause": lambda value: Cause(_text(value)),
    "echo": _flag,
    "exit_status": _status,
    "failure": _or_none(_failure),
    "failure_class": _or_none(lambda value: FailureClass(_text(value))),
    "fatal": _flag,
    "final": _flag,
    "generation": _number,
    "group_rank": _number,
    "host": _text,
    "index": _or_none(_number),
    "label": _text,
    "labels": _list_of(_text),
    "local_rank": _number,
    "max_restarts": _number,
    "name": _text,
    "node": _text,
    "nodes": _list_of(_text),
    "nproc": _number,
    "pid": _number,
    "port": _number,
    "rank": _number,
    "reason": _text,
    "restart": _number,
    "restarts": _number,
    "role": _text,
    "round": _number,
    "say": lambda value: ReportKind(_text(value)),
    "seats": _list_of(_seat),
    "step": _number,
    "tail": _list_of(_text),
    "token": _text,
    "tokens": _list_of(_text),
    "trace": _text,
    "why": _text,
}


def _checked(wanted: type[Any], body: Mapping[str, Any]) -> dict[str, Any]:
    known = {field.name: field for field in fields(wanted)}
    if unknown := sorted(body.keys() - known.keys()):
        raise TypeError(f"unknown field {', '.join(unknown)}")
    needed = {name for name, field in known.items() if field.default is MISSING}
    if missing := sorted(needed - body.keys()):
        raise TypeError(f"without {', '.join(missing)}")
    found = {}
    for name, value in body.items():
        try:
            found[name] = _READERS[name](value)
        except (TypeError, ValueError) as error:
            raise TypeError(f"{name}: {error}") from error
    return found


def _built(wanted: type[Record], body: Mapping[str, Any]) -> Record:
    record = wanted(**_checked(wanted, body))
    if isinstance(record, Assignment):
        nodes = record.nodes
        if not nodes or len(set(nodes)) != len(nodes):
            raise ValueError(f"seats of {list(nodes)}; wanted one seat or more, none twice")
    return record
