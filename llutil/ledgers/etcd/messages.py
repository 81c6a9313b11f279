"""Converts our keys, records and views to etcd's messages, and back. Pure functions.

Every write is one conditional transaction. If its condition fails, it reads the keys in question.
So a second attempt, made because the answer to the first one was lost, reads what the first one
wrote.

This module may import etcd3's messages and the values of ``llutil.ledgers``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from llutil.errors import ConfigError
from llutil.ledgers.etcd.etcd3_import import etcdrpc
from llutil.ledgers.keys import Namespace, by_arrival, holds
from llutil.ledgers.protocol import Record, View

__all__ = [
    "create",
    "delete",
    "join",
    "key_range",
    "lease_id",
    "lease_name",
    "read",
    "to_record",
    "to_view",
]


def lease_name(number: int) -> str:
    """A lease as etcd's own tools write it; empty for no lease."""
    return f"{number:x}" if number else ""


def lease_id(name: str) -> int:
    """The inverse of ``lease_name``. :raises ConfigError: ``name`` is not the name of a lease in
    etcd.
    """
    try:
        number = int(name, 16)
    except ValueError:
        number = 0
    if not 0 < number < 1 << 63:
        raise ConfigError(f"{name!r} is not the name of a lease in etcd (a hexadecimal number)")
    return number


def key_range(namespace: Namespace, scope: str) -> tuple[bytes, bytes]:
    """The first key that ``scope`` covers in etcd, and the end. The end is exclusive, and empty for
    a single key.

    For a folder, the range covers everything below it, at any depth. ``to_view`` drops what is not
    directly in the folder.
    """
    key = namespace.outside(scope).encode()
    # "0" is the character after "/".
    return key, key[:-1] + b"0" if scope.endswith("/") else b""


def read(namespace: Namespace, scope: str, *, keys_only: bool = False) -> Any:
    """The request for the records that are in ``scope`` now, confirmed by a quorum of etcd."""
    key, end = key_range(namespace, scope)
    return etcdrpc.RangeRequest(key=key, range_end=end, keys_only=keys_only)


def to_record(namespace: Namespace, kv: Any) -> Record:
    """A KeyValue as a record. A key that is not UTF-8 was written by others; its bytes become
    surrogates.
    """
    key = namespace.inside(kv.key.decode(errors="surrogateescape"))
    return Record(key, kv.value, kv.create_revision, lease_name(kv.lease))


def to_view(namespace: Namespace, scope: str, kvs: Iterable[Any], revision: int) -> View:
    """The reply to ``read`` as a view."""
    records = (to_record(namespace, kv) for kv in kvs)
    return View(by_arrival(one for one in records if holds(scope, one.key)), revision)


def _is_new(path: bytes) -> Any:
    return _has_revision(path, 0)


def _has_revision(path: bytes, created: int) -> Any:
    compare = etcdrpc.Compare
    return compare(result=compare.EQUAL, target=compare.CREATE, key=path, create_revision=created)


def _put(path: bytes, value: bytes, lease: int) -> Any:
    return etcdrpc.RequestOp(request_put=etcdrpc.PutRequest(key=path, value=value, lease=lease))


def _range(request: Any) -> Any:
    return etcdrpc.RequestOp(request_range=request)


def join(
    namespace: Namespace, key: str, value: bytes, lease: int, reads: Iterable[tuple[str, bool]]
) -> Any:
    """The transaction: if ``key`` is new, put it; else read it. Then read each scope in ``reads``,
    in both cases. True beside a scope means that only its keys are read.
    """
    path, _ = key_range(namespace, key)
    ranges = [_range(read(namespace, scope, keys_only=keys_only)) for scope, keys_only in reads]
    return etcdrpc.TxnRequest(
        compare=[_is_new(path)],
        success=[_put(path, value, lease), *ranges],
        failure=[_range(read(namespace, key)), *ranges],
    )


def create(namespace: Namespace, values: Mapping[str, bytes], guard: Record, lease: int) -> Any:
    """The transaction: if ``guard`` exists and all keys are new, put them all. Else read the key of
    ``guard``, and then each key.
    """
    paths = {key_range(namespace, key)[0]: value for key, value in values.items()}
    return etcdrpc.TxnRequest(
        compare=[
            _has_revision(key_range(namespace, guard.key)[0], guard.created),
            *(_is_new(path) for path in paths),
        ],
        success=[_put(path, value, lease) for path, value in paths.items()],
        failure=[
            _range(read(namespace, guard.key, keys_only=True)),
            *(_range(read(namespace, key)) for key in values),
        ],
    )


def delete(namespace: Namespace, scopes: Iterable[str], guard: Record) -> Any:
    """The transaction: if ``guard`` exists, delete everything in and below the scopes."""
    key_ranges = [key_range(namespace, scope) for scope in scopes]
    return etcdrpc.TxnRequest(
        compare=[_has_revision(key_range(namespace, guard.key)[0], guard.created)],
        success=[
            etcdrpc.RequestOp(
                request_delete_range=etcdrpc.DeleteRangeRequest(key=key, range_end=end)
            )
            for key, end in key_ranges
        ],
        failure=[],
    )
