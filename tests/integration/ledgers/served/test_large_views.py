"""A served ledger that holds more than one message can: its watches show all of it, and what cannot
be answered fails.
"""

from __future__ import annotations

import itertools
import time

import pytest

from llutil.ledgers import LedgerRefused, LedgerUnavailable, View
from llutil.ledgers.served.handshake import MAX_MESSAGE
from llutil.ledgers.served.server import LedgerServer
from llutil.ledgers.served.server_connection import ServerConnection
from tests.integration.ledgers.served.conftest import Place
from tests.support.ledger_contract import DAY, Node, keys, soon, wait_until

RECORDS = 17
VALUE = b"v" * (1 << 20)
FOLDER = [f"log/{number:02}" for number in range(RECORDS)]


@pytest.fixture
def let_in(server: LedgerServer, monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """When the server was connected to."""
    times: list[float] = []
    real = server.let_in

    def note(connection: ServerConnection) -> None:
        times.append(time.monotonic())
        real(connection)

    monkeypatch.setattr(server, "let_in", note)
    return times


@pytest.fixture
def writer(place: Place, let_in: list[float]) -> Node:
    """Who has written a folder that is longer than a message."""
    node = place.node()
    guard = node.join("writer").record
    lease = node.session.grant_lease(DAY, deadline=soon())
    for key in FOLDER:
        node.session.create({key: VALUE}, guard=guard, lease=lease, deadline=soon())
    assert len(VALUE) * RECORDS > MAX_MESSAGE
    return node


def test_a_watch_shows_more_than_a_message_holds_with_one_connection(
    place: Place, writer: Node, let_in: list[float]
) -> None:
    reader = place.node()
    watch = reader.ledger.watch("log/", deadline=soon())
    assert keys(watch.view()) == FOLDER
    assert {record.value for record in watch.view().records} == {VALUE}
    old = View((), watch.view().revision - RECORDS)
    later = reader.ledger.watch("log/", since=old, deadline=soon())
    reader.changes.wait_for(lambda: keys(later.view()) == FOLDER)
    guard = writer.session.join("members/", "writer", b"me", deadline=soon()).record
    assert writer.session.delete("log/00", guard=guard, deadline=soon())
    reader.changes.wait_for(
        lambda: keys(watch.view()) == FOLDER[1:] and keys(later.view()) == FOLDER[1:]
    )
    assert len(let_in) == 2, "one connection of each node"


def test_an_answer_that_no_message_holds_is_a_refusal_that_says_so(
    place: Place, writer: Node, let_in: list[float]
) -> None:
    reader = place.node()
    with pytest.raises(LedgerRefused, match=rf"\d+ bytes.* {MAX_MESSAGE} at most"):
        reader.ledger.read("log/", deadline=soon())
    with pytest.raises(LedgerRefused, match=rf"\d+ bytes.* {MAX_MESSAGE} at most"):
        reader.session.join("members/", "reader", b"", reads=("log/",), deadline=soon())
    assert reader.read("log/00") == {"log/00": VALUE}
    assert len(let_in) == 2, "one connection of each node"


def test_a_server_that_welcomes_and_then_hangs_up_is_asked_less_and_less_often(
    place: Place, server: LedgerServer, let_in: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = ServerConnection.send

    def send(connection: ServerConnection, body: bytes) -> None:
        real(connection, body)
        connection.close()

    monkeypatch.setattr(ServerConnection, "send", send)
    node = place.node()
    with pytest.raises(LedgerUnavailable):
        node.ledger.read("log/", deadline=soon(0.8))
    wait_until(lambda: len(let_in) >= 5)
    gaps = [after - before for before, after in itertools.pairwise(let_in)]
    assert all(gap > pause for gap, pause in zip(gaps, (0.04, 0.09, 0.19, 0.39), strict=False))
    monkeypatch.undo()
    assert node.read("log/") == {}
