"""A ledger whose own threads break down: whoever relies on them is told, and does not wait for ever."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from llutil.ledgers import LedgerRefused, SessionState
from llutil.ledgers.etcd import leases as etcd_leases
from llutil.ledgers.etcd import watches as etcd_watches
from llutil.ledgers.zookeeper import keeping as zookeeper_keeping
from llutil.ledgers.zookeeper import watches as zookeeper_watches
from tests.integration.ledgers import zookeeper_world
from tests.integration.ledgers.conftest import world_on as etcd_world
from tests.ledger_contract import World, soon, wait_until
from tests.servers import EtcdServer
from tests.zookeepers import ZooKeeperServer

STORES = [
    pytest.param("etcd", marks=pytest.mark.etcd),
    pytest.param("zookeeper", marks=pytest.mark.zookeeper),
]
WATCHING = {
    "etcd": (etcd_watches.Watches, "_serve"),
    "zookeeper": (zookeeper_watches.Watches, "_look"),
}
KEEPING = {
    "etcd": (etcd_leases.Keeper, "_renew"),
    "zookeeper": (zookeeper_keeping.Keeper, "_renew_session"),
}


def breaks(*_: object) -> None:
    raise RuntimeError("a mistake of ours")


@pytest.fixture(params=STORES)
def store(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
def world(
    store: str, server: EtcdServer, shared_zookeeper: ZooKeeperServer, quiet: None
) -> Iterator[World]:
    world = (
        etcd_world(server.endpoint, ttl=4.0)
        if store == "etcd"
        else zookeeper_world.world_on(shared_zookeeper.endpoint, ttl=4.0)
    )
    with world.open():
        yield world


def refusal(view: Callable[[], object]) -> str:
    try:
        view()
    except LedgerRefused as error:
        return str(error)
    return ""


def test_who_watches_is_told_and_may_watch_again(
    store: str, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = world.node()
    with monkeypatch.context() as broken:
        broken.setattr(*WATCHING[store], breaks)
        watch = node.ledger.watch("log/", deadline=soon())
        wait_until(lambda: bool(refusal(watch.view)))
    assert "this side broke down: RuntimeError: a mistake of ours" in refusal(watch.view)
    again = node.ledger.watch("log/", deadline=soon())
    own = node.join("a").record
    node.create(own, node.session.grant(60.0, deadline=soon()), a=b"1")
    wait_until(lambda: [record.key for record in again.view().records] == ["log/a"])


def test_a_session_that_nobody_renews_any_more_is_lost_and_not_suspended_for_ever(
    store: str, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = world.node()
    monkeypatch.setattr(*KEEPING[store], breaks)
    node.join("a")
    wait_until(lambda: node.session.state is SessionState.LOST)


@pytest.mark.parametrize("store", STORES[1:], indirect=True)
def test_a_notice_that_is_lost_only_delays_what_a_watch_shows(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """etcd numbers its events, so that none can be lost in silence."""
    monkeypatch.setattr(zookeeper_watches, "_NET", 0.2)
    monkeypatch.setattr(zookeeper_watches._Watched, "wake", lambda *_: None)
    node = world.node()
    watch = node.ledger.watch("log/", deadline=soon())
    own = node.join("a").record
    node.create(own, node.session.grant(60.0, deadline=soon()), a=b"1")
    wait_until(lambda: [record.key for record in watch.view().records] == ["log/a"])
