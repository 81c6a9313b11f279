"""When a thread of a ledger fails, its watches and sessions say so instead of waiting for ever."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from llutil.ledgers import LedgerRefused, SessionState
from llutil.ledgers.etcd import leases as etcd_leases
from llutil.ledgers.etcd import watches as etcd_watches
from llutil.ledgers.served import session as served_session
from llutil.ledgers.zookeeper import session_keeper as zookeeper_session_keeper
from llutil.ledgers.zookeeper import watches as zookeeper_watches
from tests.support.ledger_contract import World, renew_often, soon, wait_until
from tests.support.stores import DURABLE_STORES, STORES, Store

WATCH_THREADS = {
    "etcd": (etcd_watches.EtcdWatchThread, "_open_stream"),
    "zookeeper": (zookeeper_watches.ZooKeeperWatchThread, "_read_again"),
}
KEEPERS = {
    "etcd": etcd_leases.EtcdSessionKeeper,
    "served": served_session.Keeper,
    "zookeeper": zookeeper_session_keeper.ZooKeeperSessionKeeper,
}


def breaks(*_: object) -> None:
    raise RuntimeError("an error of ours")


def refusal(view: Callable[[], object]) -> str:
    try:
        view()
    except LedgerRefused as error:
        return str(error)
    return ""


# A served ledger has no threads for watches.
@pytest.mark.parametrize("store", DURABLE_STORES)
def test_a_watch_raises_the_failure_and_a_new_watch_works(
    store: Store, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = world.node()
    with monkeypatch.context() as broken:
        broken.setattr(*WATCH_THREADS[store.name], breaks)
        watch = node.ledger.watch("log/", deadline=soon())
        wait_until(lambda: bool(refusal(watch.view)))
    assert "the watch thread of this process failed: RuntimeError: an error of ours" in refusal(
        watch.view
    )
    again = node.ledger.watch("log/", deadline=soon())
    own = node.join("a").record
    node.create(own, node.session.grant_lease(60.0, deadline=soon()), a=b"1")
    wait_until(lambda: [record.key for record in again.view().records] == ["log/a"])


@pytest.mark.parametrize("store", STORES)
def test_a_session_whose_keeper_failed_is_lost_and_not_suspended_for_ever(
    store: Store, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    renew_often(monkeypatch)
    monkeypatch.setattr(KEEPERS[store.name], "_renew_session", breaks)
    session = world.node().session
    wait_until(lambda: session.state is SessionState.LOST)
