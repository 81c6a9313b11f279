"""Our keys, records and views as etcd's messages, and back. Pure functions.

Every write is one conditional transaction that says in its failure branch what stood in its way, so
that doing it again after a doubtful attempt reads back what the first one did.

This module may import etcd3's messages, and of ours the values of ``llutil.ledgers``.
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
    "lease_id",
    "lease_name",
    "read",
    "span",
    "to_record",
    "to_view",
]


def lease_name(number: int) -> str:
    """A lease as etcd's own tools write it; empty for none."""
    return f"{number:x}" if number else ""


def lease_id(name: str) -> int:
    """The inverse of ``lease_name``. :raises ConfigError: ``name`` is no lease of etcd's."""
    try:
        number = int(name, 16)
    except ValueError:
        number = 0
    if not 0 < number < 1 << 63:
        raise ConfigError(f"{name!r} is not the name of a lease in etcd (a hexadecimal number)")
    return number


def span(namespace: Namespace, scope: str) -> tuple[bytes, bytes]:
    """First key and end (exclusive; empty for a single key) of what ``scope`` covers in etcd.

    For a folder that is all that lies below it, at any depth; ``to_view`` leaves out what is too
    deep.
    """
    key = namespace.outside(scope).encode()
    return key, key[:-1] + b"0" if scope.endswith("/") else b""  # "0" is the character after "/"


def read(namespace: Namespace, scope: str, *, keys_only: bool = False) -> Any:
    """The request for what is in ``scope`` now, as a quorum of etcd sees it."""
    key, end = span(namespace, scope)
    return etcdrpc.RangeRequest(key=key, range_end=end, keys_only=keys_only)


def to_record(namespace: Namespace, kv: Any) -> Record:
    """A KeyValue as a record. Keys of others that are not UTF-8 keep their bytes as surrogates."""
    key = namespace.inside(kv.key.decode(errors="surrogateescape"))
    return Record(key, kv.value, kv.create_revision, lease_name(kv.lease))


def to_view(namespace: Namespace, scope: str, kvs: Iterable[Any], revision: int) -> View:
    """The answer to ``read`` as a view."""
    records = (to_record(namespace, kv) for kv in kvs)
    return View(by_arrival(one for one in records if holds(scope, one.key)), revision)


def _is_new(path: bytes) -> Any:
    return _is_from(path, 0)


def _is_from(path: bytes, created: int) -> Any:
    compare = etcdrpc.Compare
    return compare(result=compare.EQUAL, target=compare.CREATE, key=path, create_revision=created)


def _put(path: bytes, value: bytes, lease: int) -> Any:
    return etcdrpc.RequestOp(request_put=etcdrpc.PutRequest(key=path, value=value, lease=lease))


def _range(request: Any) -> Any:
    return etcdrpc.RequestOp(request_range=request)


def join(
    namespace: Namespace, key: str, value: bytes, lease: int, reads: Iterable[tuple[str, bool]]
) -> Any:
    """Put ``key`` if it is new; else read it. In both cases then read each scope (True: keys
    only).
    """
    path, _ = span(namespace, key)
    ranges = [_range(read(namespace, scope, keys_only=bare)) for scope, bare in reads]
    return etcdrpc.TxnRequest(
        compare=[_is_new(path)],
        success=[_put(path, value, lease), *ranges],
        failure=[_range(read(namespace, key)), *ranges],
    )


def create(namespace: Namespace, values: Mapping[str, bytes], guard: Record, lease: int) -> Any:
    """Put all keys if all are new and ``guard`` is there; else read ``guard`` (its key) and then
    each key.
    """
    paths = {span(namespace, key)[0]: value for key, value in values.items()}
    return etcdrpc.TxnRequest(
        compare=[
            _is_from(span(namespace, guard.key)[0], guard.created),
            *(_is_new(path) for path in paths),
        ],
        success=[_put(path, value, lease) for path, value in paths.items()],
        failure=[
            _range(read(namespace, guard.key, keys_only=True)),
            *(_range(read(namespace, key)) for key in values),
        ],
    )


def delete(namespace: Namespace, scopes: Iterable[str], guard: Record) -> Any:
    """Delete all that is in and below the scopes, if ``guard`` is there."""
    spans = [span(namespace, scope) for scope in scopes]
    return etcdrpc.TxnRequest(
        compare=[_is_from(span(namespace, guard.key)[0], guard.created)],
        success=[
            etcdrpc.RequestOp(
                request_delete_range=etcdrpc.DeleteRangeRequest(key=key, range_end=end)
            )
            for key, end in spans
        ],
        failure=[],
    )
