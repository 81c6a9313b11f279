"""The store that a node hosts: where it listens, what its guests' connections put up with, and what
is left of it.
"""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import psutil  # type: ignore[import-untyped]  # psutil ships no types
import pytest
from torch.distributed.elastic.rendezvous import RendezvousParameters

from llutil.errors import RendezvousError, ServerLostError
from llutil.rendezvous.driver import round_store
from llutil.rendezvous.driver.round_store import SHARING_OFF
from llutil.rendezvous.hosted.handler import HostedRendezvous
from llutil.rendezvous.hosted.node_store import HostedStore, StoreAddress
from llutil.rendezvous.hosted.store_handshake import knock, new_secret

_HOST = "127.0.0.1"


def _meet(secret: str, port: int = 0) -> HostedRendezvous:
    """The host, or with its door's port a guest."""
    place = StoreAddress(
        host=_HOST,
        port=port,
        secret=secret,
        hosts=not port,
        local_addr=None,
        index=None,
        label="",
    )
    return HostedRendezvous(place, RendezvousParameters("c10d", f"{_HOST}:{port}", "run", 2, 2))


@pytest.fixture
def host() -> Iterator[tuple[HostedRendezvous, str, int]]:
    """A host, its secret and its door's port."""
    secret = new_secret()
    host = _meet(secret)
    yield host, secret, int(host.endpoint.rpartition(":")[2])
    host.shutdown()
    assert not [one for one in threading.enumerate() if one.name == "llutil-door"]


def _connections(status: str) -> list[Any]:
    return [one for one in psutil.Process().net_connections("tcp") if one.status == status]


def test_it_listens_at_its_own_address_only() -> None:
    """torch by itself would let in whoever reaches any address of the machine."""
    before = {one.laddr for one in _connections(psutil.CONN_LISTEN)}
    host = _meet(new_secret())
    listening = {one.laddr for one in _connections(psutil.CONN_LISTEN)} - before
    host.shutdown()
    assert len(listening) == 2  # the door and the store
    assert {one.ip for one in listening} == {_HOST}


def test_a_guests_connections_end_when_the_host_is_gone_without_a_word(
    host: tuple[HostedRendezvous, str, int],
) -> None:
    """Else a guest would wait in C++, deaf to signals, for as long as TCP tries: a quarter of an
    hour.
    """
    _, secret, port = host
    with_store = knock(_HOST, port, secret, 5)
    with_store.close()
    guest = _meet(secret, port)
    limits = []
    for one in _connections(psutil.CONN_ESTABLISHED):
        if one.raddr.port == with_store.store_port:
            with socket.socket(fileno=os.dup(one.fd)) as connection:
                limits.append(connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT))
    assert limits
    assert set(limits) == {20_000}  # milliseconds
    guest.shutdown()


def test_a_connection_to_the_same_port_of_another_host_is_left_alone(
    host: tuple[HostedRendezvous, str, int],
) -> None:
    _, secret, port = host
    first = knock(_HOST, port, secret, 5)
    first.close()
    address = ("127.0.0.2", first.store_port)
    with socket.create_server(address), socket.create_connection(address) as other:
        guest = _meet(secret, port)
        assert other.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 0
        guest.shutdown()


def test_an_address_that_is_not_this_machines_is_told_with_what_to_do(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One of another machine: TEST-NET-1, RFC 5737."""
    monkeypatch.setattr(round_store, "_OWN_CONNECTION", timedelta(milliseconds=50))
    place = StoreAddress(
        host="192.0.2.1", port=0, secret="", hosts=True, local_addr=None, index=None, label=""
    )
    with pytest.raises(RendezvousError, match=r"cannot host .*; see whether .* or set local_addr"):
        HostedStore(place)


def test_torchs_variable_is_said_to_have_no_effect(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv(SHARING_OFF, "1")
    _meet(new_secret()).shutdown()
    assert [SHARING_OFF in line for line in caplog.messages].count(True) == 1


def test_another_launchs_secret_opens_nothing(host: tuple[HostedRendezvous, str, int]) -> None:
    _, _, port = host
    with pytest.raises(ServerLostError, match="is not the node that left this address"):
        _meet(new_secret(), port)


def test_the_host_waits_for_its_guests_to_go_and_is_gone_then(
    host: tuple[HostedRendezvous, str, int],
) -> None:
    made, secret, port = host
    guest = _meet(secret, port)
    ending = threading.Thread(target=made.shutdown)
    ending.start()
    ending.join(0.3)
    assert ending.is_alive()
    guest.shutdown()
    ending.join(10)
    assert not ending.is_alive()
    with pytest.raises(ServerLostError, match="nobody is there whose store node 0 hosts"):
        _meet(secret, port)
