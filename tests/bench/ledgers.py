"""What a ledger's basic operations cost on one etcd on this machine, beside the bare gRPC call that
each rests on, and the same in memory.

Calls are made one after the other; the etcd writes to this machine's disk.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack

from llutil.ledgers import Ledger
from llutil.ledgers.etcd.config import EtcdConfig
from llutil.ledgers.etcd.etcd3_import import etcdrpc
from llutil.ledgers.etcd.ledger import EtcdLedger
from llutil.ledgers.memory import MemoryLedger
from llutil.ledgers.memory_store import MemoryStore
from tests.bench.report.measurement import Measurement, Sample
from tests.support.etcd_servers import EtcdServer, etcd

__all__ = ["measure"]

_CALLS = 100
_DAY = 86400.0


def measure() -> Iterator[Measurement]:
    """Each operation on etcd; its peer is the bare call, or else the one in memory."""
    with etcd() as server, ExitStack() as stack:
        store = MemoryStore()
        config = EtcdConfig(endpoints=(server.endpoint,), namespace="bench")
        memory = dict(_operations(lambda told: MemoryLedger(store, told), stack))
        on_etcd = dict(_operations(lambda told: EtcdLedger(config, told), stack))
        bare = dict(_bare(server))
    for what, costs in on_etcd.items():
        yield Measurement(
            name=what.replace(",", "").replace(" ", "-"),
            what=what,
            unit="s",
            ours=Sample.of(costs),
            peer=Sample.of(bare.get(what, memory[what])),
            peer_name="the bare gRPC call" if what in bare else "in memory",
        )


def _soon() -> float:
    return time.monotonic() + 10


def _costs(act: Callable[[int], object]) -> list[float]:
    """Seconds of each call of ``act``, with 0, 1, 2, ..."""
    costs = []
    for index in range(_CALLS):
        began = time.perf_counter()
        act(index)
        costs.append(time.perf_counter() - began)
    return costs


def _operations(
    make: Callable[[Callable[[], None]], Ledger], stack: ExitStack
) -> Iterator[tuple[str, list[float]]]:
    told = threading.Event()
    ledger, other = make(told.set), make(lambda: None)
    stack.callback(ledger.close)
    stack.callback(other.close)

    def first(_: int) -> None:
        one = make(lambda: None)
        session = one.open_session(10, deadline=_soon())
        session.join("first/", session.lease, b"", deadline=_soon())
        session.release(deadline=_soon())
        one.close()

    yield "connect, open a session, join, release, close", _costs(first)
    session = ledger.open_session(10, deadline=_soon())

    def join(index: int) -> None:
        session.join("members/", f"{index:03}", b"x" * 200, reads=("log/",), deadline=_soon())

    yield f"join, 0 to {_CALLS} members there", _costs(join)
    guard = session.join("own/", "me", b"", deadline=_soon()).record
    lease = session.grant_lease(_DAY, deadline=_soon())

    def create(index: int) -> None:
        values = {f"log/{index:03}.{name}": b"x" * 200 for name in "ab"}
        session.create(values, guard=guard, lease=lease, deadline=_soon())

    yield "create two records", _costs(create)
    yield "create what exists", _costs(lambda _: create(0))
    yield "read one record", _costs(lambda _: ledger.read("log/000.a", deadline=_soon()))
    yield f"read {_CALLS} records", _costs(lambda _: ledger.read("members/", deadline=_soon()))
    seen = other.read("log/", deadline=_soon())
    yield (
        "watch from what was read, and close it",
        _costs(lambda _: other.watch("log/", since=seen, deadline=_soon()).close()),
    )
    watch = ledger.watch("events/", deadline=_soon())
    writer = other.open_session(10, deadline=_soon())
    guards = writer.join("own/", "writer", b"", deadline=_soon()).record
    shared = writer.grant_lease(_DAY, deadline=_soon())

    def notice(index: int) -> None:
        writer.create({f"events/{index}": b""}, guard=guards, lease=shared, deadline=_soon())
        while len(watch.view().records) <= index:
            told.clear()
            if len(watch.view().records) <= index:
                assert told.wait(10)

    yield "create a record, and see it through a watch", _costs(notice)
    yield (
        "grant a lease, and end it",
        _costs(
            lambda _: ledger.end_lease(
                session.grant_lease(_DAY, deadline=_soon()), deadline=_soon()
            )
        ),
    )


def _bare(server: EtcdServer) -> Iterator[tuple[str, list[float]]]:
    with server.channel() as channel:
        kv, lease = etcdrpc.KVStub(channel), etcdrpc.LeaseStub(channel)

        def create(index: int) -> None:
            puts = [
                etcdrpc.RequestOp(
                    request_put=etcdrpc.PutRequest(
                        key=f"bare{index}{name}".encode(), value=b"x" * 200
                    )
                )
                for name in "ab"
            ]
            kv.Txn(etcdrpc.TxnRequest(success=puts), timeout=10)

        def grant(_: int) -> None:
            granted = lease.LeaseGrant(etcdrpc.LeaseGrantRequest(TTL=86400), timeout=10)
            lease.LeaseRevoke(etcdrpc.LeaseRevokeRequest(ID=granted.ID), timeout=10)

        yield "create two records", _costs(create)
        one = etcdrpc.RangeRequest(key=b"/bench/-/log/000.a")
        yield "read one record", _costs(lambda _: kv.Range(one, timeout=10))
        all_of_them = etcdrpc.RangeRequest(key=b"/bench/-/members/", range_end=b"/bench/-/members0")
        yield f"read {_CALLS} records", _costs(lambda _: kv.Range(all_of_them, timeout=10))
        yield "grant a lease, and end it", _costs(grant)
