"""The door of a hosted store: who has the secret is recognised, and nobody waits for anybody else
for long.
"""

from __future__ import annotations

import socket
import threading
import time

import pytest

from llutil.rendezvous.hosted.store_handshake import Door, WrongDoorError, knock, new_secret
from llutil.system.addresses import host_and_port, is_loopback

_HOST = "127.0.0.1"
_SECONDS = 5.0


@pytest.fixture
def door():
    made = Door(_HOST, "secret", 4711)
    yield made
    made.close()
    assert not [one for one in threading.enumerate() if one.name == "llutil-door"]


def test_who_knocks_at_the_right_door_learns_where_the_store_is(door):
    visit = knock(_HOST, door.port, "secret", _SECONDS)
    assert visit.store_port == 4711
    assert not visit.over
    visit.close()


def test_another_launchs_door_is_not_taken_for_the_own_ones(door):
    with pytest.raises(WrongDoorError, match="is not the node that left this address"):
        knock(_HOST, door.port, "the secret of an earlier launch", _SECONDS)


def test_a_program_that_says_something_else_is_not_taken_for_a_door():
    with socket.create_server((_HOST, 0)) as server:

        def talk():
            connection, _ = server.accept()
            with connection:
                connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n" * 20)

        thread = threading.Thread(target=talk)
        thread.start()
        with pytest.raises(WrongDoorError, match=r"HTTP/1\.1 400"):
            knock(_HOST, server.getsockname()[1], "secret", _SECONDS)
        thread.join()


def test_a_program_that_says_nothing_is_waited_for_as_long_as_said():
    began = time.monotonic()
    with socket.create_server((_HOST, 0)) as server, pytest.raises(TimeoutError):
        knock(_HOST, server.getsockname()[1], "secret", 0.2)
    assert 0.2 <= time.monotonic() - began < _SECONDS


def test_a_port_that_nobody_listens_on_is_refused():
    with socket.create_server((_HOST, 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(ConnectionRefusedError):
        knock(_HOST, port, "secret", _SECONDS)


def test_visitors_see_that_a_door_closes_and_the_host_sees_that_they_go(door):
    visits = [knock(_HOST, door.port, "secret", _SECONDS) for _ in range(3)]
    assert door.visitors == 3
    visits.pop().close()
    until = time.monotonic() + _SECONDS
    while door.visitors != 2 and time.monotonic() < until:
        threading.Event().wait(0.01)
    assert door.visitors == 2
    door.close()
    while not all(visit.over for visit in visits) and time.monotonic() < until:
        threading.Event().wait(0.01)
    assert [visit.over for visit in visits] == [True, True]
    with pytest.raises(OSError):
        knock(_HOST, door.port, "secret", _SECONDS)
    for visit in visits:
        visit.close()


def test_one_who_asks_nothing_holds_nobody_up(door):
    with socket.create_connection((_HOST, door.port)):
        knock(_HOST, door.port, "secret", _SECONDS).close()


def test_one_who_asks_something_else_is_sent_away(door):
    with socket.create_connection((_HOST, door.port), timeout=_SECONDS) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\n\r\n" * 20)
        said = b""
        try:
            while data := connection.recv(100):
                said += data
        except ConnectionResetError:
            pass
        assert said == b""


def test_a_door_is_at_its_own_address_only():
    with pytest.raises(OSError):
        Door("192.0.2.1", "secret", 4711)


def test_secrets_are_of_one_launch():
    assert len({new_secret() for _ in range(100)}) == 100


@pytest.mark.parametrize(
    ("addresses", "expected"),
    [
        (["127.0.0.1", "127.8.8.8", "::1", "localhost"], True),
        (["10.0.0.1", "fe80::1", "worker-3"], False),
    ],
)
def test_loopback_addresses_lead_to_the_machine_itself(addresses, expected):
    assert {is_loopback(address) for address in addresses} == {expected}


def test_addresses_of_ipv6_are_bracketed():
    assert [host_and_port("::1", 2), host_and_port("10.0.0.1", 2)] == ["[::1]:2", "10.0.0.1:2"]
