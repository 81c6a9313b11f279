"""Three members of one store: one does not exist, or the leader dies."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from llutil.backends.endpoints import Endpoint
from llutil.ledgers import SessionState
from tests.support.ledger_contract import keys, soon, wait_until
from tests.support.ledger_traffic import Reader, Writer
from tests.support.ports import free_ports
from tests.support.stores import DURABLE_STORES, Server, Store, leader_first

pytestmark = [pytest.mark.fault, pytest.mark.parametrize("store", DURABLE_STORES, scope="module")]


@pytest.fixture(scope="module")
def members(store: Store) -> Iterator[list[Server]]:
    """Three servers that form one store, for all tests of this file."""
    with store.start_members() as servers:
        yield servers


@pytest.mark.parametrize("first", ["dead", "unknown"])
def test_an_endpoint_that_does_not_answer_does_no_harm(
    store: Store, members: list[Server], first: str
) -> None:
    absent = {
        "dead": Endpoint("127.0.0.1", free_ports(1)[0]),
        "unknown": Endpoint("no-such-host.invalid", 2379),
    }[first]
    with store.world(absent, *(member.endpoint for member in members)).open() as world:
        node = world.node()
        watch = node.ledger.watch("members/", deadline=soon())
        node.join("a")
        node.changes.wait_for(lambda: keys(watch.view()) == ["members/a"])


def test_no_write_is_lost_and_no_watch_breaks_when_the_leader_dies(
    store: Store, members: list[Server]
) -> None:
    leader, *_ = leader_first(members)
    with store.world(*(member.endpoint for member in members), ttl=10).open() as world:
        reader = Reader(world.node(), "log/")
        with Writer(world.node()) as writer:
            wait_until(lambda: writer.count > 10)
            leader.kill()
            before = writer.count
            wait_until(lambda: writer.count > before + 20, 30)
        reader.check(writer.written())
        assert writer.longest < 10
        for node in world.nodes:
            wait_until(lambda: node.session.state is SessionState.CONNECTED)  # noqa: B023 - called at once
