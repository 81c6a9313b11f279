"""What a network, and a server that stops or is started again, do to the clients of a served
ledger.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest

from llutil.ledgers import LedgerClosed, LedgerUnavailable, SessionLost, SessionState
from llutil.ledgers.errors import LedgerGone
from llutil.ledgers.lease_revocation import LeaseRevocation
from llutil.ledgers.served import connection as connection_module
from llutil.ledgers.served import revocation as revocation_module
from llutil.ledgers.served import server as server_module
from llutil.ledgers.served.client_state import ClientState
from llutil.ledgers.served.messages import Request
from llutil.ledgers.served.server import LedgerServer
from tests.integration.ledgers.conftest import wait_for_reason
from tests.integration.ledgers.served.conftest import Place
from tests.support.forks import fork
from tests.support.ledger_contract import DAY, keys, soon, wait_until
from tests.support.proxy import Proxy, proxy

pytestmark = pytest.mark.fault


@pytest.fixture
def cable(server: LedgerServer) -> Iterator[Proxy]:
    """A network to the server that can be cut."""
    with proxy(server.port) as cable:
        yield cable


def test_a_write_whose_answer_was_lost_is_not_done_twice(
    place: Place, server: LedgerServer, cable: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    perform = ClientState._do

    def counted(state: ClientState, call: Any) -> Any:
        done.append(type(call).__name__)
        return perform(state, call)

    monkeypatch.setattr(ClientState, "_do", counted)
    node = place.node(port=cable.port)
    guard = node.join("a").record
    lease = node.session.grant_lease(DAY, deadline=soon())
    cable.lose_replies()
    threading.Thread(target=lambda: (cable.lost.wait(30), cable.mend())).start()
    created = node.create(guard, lease, x=b"1")
    assert done.count("Create") == 1
    assert node.read("log/") == {"log/x": b"1"}
    assert [one.value for one in created.records] == [b"1"]  # type: ignore[union-attr]


def test_what_changed_while_a_client_was_cut_off_is_seen_afterwards_and_sessions_live(
    place: Place, server: LedgerServer, cable: Proxy
) -> None:
    near, far = place.node(), place.node(port=cable.port)
    far.join("far")
    watch = far.ledger.watch("members/", deadline=soon())
    near.join("came")
    went = place.node()
    went.join("went")
    far.changes.wait_for(lambda: len(watch.view().records) == 3)
    cable.cut()
    went.session.release(deadline=soon())
    near.session.join("members/", "second", b"2", deadline=soon())
    wait_for_reason(partial(far.ledger.read, "members/"), "could not be reached in time", 0.3)
    cable.mend()
    expected = ["members/far", "members/came", "members/second"]
    far.changes.wait_for(lambda: keys(watch.view()) == expected)
    assert far.session.state is SessionState.CONNECTED
    assert watch.view() is watch.view()


def test_a_session_that_nobody_renews_ends_on_the_servers_clock_with_its_records(
    place: Place, server: LedgerServer, cable: Proxy
) -> None:
    near, far = place.node(), place.node(1.0, port=cable.port)
    far.join("far")
    watch = near.ledger.watch("members/", deadline=soon())
    assert keys(watch.view()) == ["members/far"]
    cable.cut()
    near.changes.wait_for(lambda: not watch.view().records)
    far.changes.wait_for(lambda: far.session.state is SessionState.SUSPENDED)
    cable.mend()
    far.changes.wait_for(lambda: far.session.state is SessionState.LOST)
    with pytest.raises(SessionLost):
        far.session.join("members/", "again", b"", deadline=soon())


def test_a_server_that_was_stopped_itself_ends_nobodys_session(
    place: Place, server: LedgerServer, cable: Proxy
) -> None:
    node, far = place.node(2.5), place.node(2.5, port=cable.port)
    node.join("near")
    far.join("far")
    stopped, goes_on = threading.Event(), threading.Event()

    def stop() -> None:  # as SIGSTOP does to the whole process
        stopped.set()
        assert goes_on.wait(60)

    cable.cut()
    server.loop.call_soon_threadsafe(stop)
    assert stopped.wait(30)
    cable.mend()  # it can only be let in once the server goes on
    for one in (node, far):
        one.changes.wait_for(lambda one=one: one.session.state is SessionState.SUSPENDED)
    time.sleep(0.2)  # the server has heard of the last renewals later than they were sent
    goes_on.set()
    for one in (node, far):
        one.changes.wait_for(lambda one=one: one.session.state is SessionState.CONNECTED)
    assert node.read("members/") == {"members/near": b"me", "members/far": b"me"}


def test_a_server_that_is_started_again_at_the_same_place_is_another_ledger(
    place: Place, server: LedgerServer, cable: Proxy
) -> None:
    node = place.node(port=cable.port)
    node.join("a")
    watch = node.ledger.watch("members/", deadline=soon())
    server.close()
    cable.cut()
    assert node.session.gone == "", "it may come back"
    with pytest.raises(LedgerUnavailable):
        node.ledger.read("members/", deadline=soon(0.2))
    place.serve()
    again = place.node().join("a", b"new").record
    cable.mend()
    node.changes.wait_for(lambda: node.session.state is SessionState.LOST)
    node.changes.wait_for(lambda: watch.view().records == (again,))


def test_without_hope_of_return_a_goodbye_is_the_end_of_the_ledger(
    place: Place, server: LedgerServer
) -> None:
    node = place.node(returns=False)
    node.join("a")
    server.close(goodbye="node 0 was stopped")
    node.changes.wait_for(lambda: "has gone: node 0 was stopped" in node.session.gone)
    with pytest.raises(LedgerGone, match="node 0 was stopped"):
        node.ledger.read("members/", deadline=soon())


def test_without_hope_of_return_nobody_at_the_address_is_the_end_of_the_ledger(
    place: Place, server: LedgerServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection_module, "_GONE_AFTER", 0.2)
    with proxy(server.port) as cable:
        node = place.node(returns=False, port=cable.port)
        node.join("a")
    node.changes.wait_for(lambda: "has gone: nobody serves a ledger there" in node.session.gone)
    waits = place.node(returns=False, port=cable.port)
    with pytest.raises(LedgerGone, match="nobody serves"):
        waits.ledger.open_session(10, deadline=soon())


def test_a_server_lingers_until_the_last_session_is_over(
    place: Place, server: LedgerServer
) -> None:
    node = place.node()
    node.join("a")
    began = time.monotonic()
    threading.Timer(0.5, lambda: node.session.release(deadline=soon())).start()
    server.close(linger=30)
    assert 0.4 < time.monotonic() - began < 20


def test_a_client_that_does_not_read_is_told_the_latest_state_later_and_delays_nobody(
    place: Place, server: LedgerServer
) -> None:
    slow, node = place.node(), place.node()
    watch = slow.ledger.watch("members/", deadline=soon())
    (client,) = server.clients.values()
    wait_until(lambda: client.connection is not None)
    connection = client.connection
    assert connection is not None
    connection.pause_writing()  # what asyncio says of a client whose buffers are full
    session = node.session
    for number in range(20):
        session.join("members/", f"n{number}", b"", deadline=soon())
    assert watch.view().records == ()
    server.loop.call_soon_threadsafe(connection.resume_writing)
    slow.changes.wait_for(lambda: len(watch.view().records) == 20)


def test_a_guardian_ends_the_session_of_its_node_with_the_standard_library(
    place: Place, server: LedgerServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(revocation_module, "_TIMEOUT", 30.0)  # no machine is too slow
    killed, node = place.node(), place.node()
    killed.join("killed")
    watch = node.ledger.watch("members/", deadline=soon())
    revocation = killed.session.revocation
    assert revocation is not None
    assert "sesame" not in repr(revocation)
    LeaseRevocation.from_json(revocation.to_json()).prepare()()
    node.changes.wait_for(lambda: not watch.view().records)
    LeaseRevocation.from_json(revocation.to_json()).prepare()()  # it is over already


def test_a_client_that_does_not_come_back_is_forgotten(
    place: Place, server: LedgerServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_module, "_CLIENT_KEPT", 0.1)
    node = place.node()
    node.read("members/")
    assert len(server.clients) == 1
    node.ledger.close()
    wait_until(lambda: not server.clients)


def test_a_client_whose_session_lives_is_not_forgotten_however_long_it_is_cut_off(
    place: Place, server: LedgerServer, cable: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_module, "_CLIENT_KEPT", 0.1)
    far, near = place.node(port=cable.port, ttl=60), place.node()
    far.join("a")
    cable.cut()
    near.read("members/")
    wait_until(lambda: len(server.clients) == 2)
    near.ledger.close()
    wait_until(lambda: len(server.clients) == 1)  # the one that has left, though later
    cable.mend()
    assert far.join("a").record.lease == far.session.lease
    assert far.session.state is SessionState.CONNECTED


def test_a_forked_child_can_use_neither_and_disturbs_nobody(
    place: Place, server: LedgerServer
) -> None:
    node = place.node()
    node.join("a")
    pid = fork()
    if pid == 0:
        try:
            node.ledger.close()
            node.ledger.read("members/", deadline=soon())
        except LedgerClosed:
            os._exit(3)
        finally:
            os._exit(1)
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 3
    assert node.read("members/") == {"members/a": b"me"}


def test_a_number_that_was_acknowledged_is_not_answered_again(server: LedgerServer) -> None:
    from llutil.ledgers.served.messages import Read

    state = ClientState(server.store, "n", lambda: None)
    first = state.answer(Request(number=1, call=Read("a/")))
    assert first
    assert state.answer(Request(number=1, call=Read("a/"))) is first
    assert state.answer(Request(number=2, call=Read("a/"), acknowledged=1)) != ()
    assert state.answer(Request(number=1, call=Read("a/"))) == ()
