"""The TCPStore of a round: who can reach it, and whether ranks use it."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import psutil  # type: ignore[import-untyped]  # psutil ships no types
import pytest

from llutil.errors import RendezvousError
from llutil.rendezvous.driver import round_store
from llutil.rendezvous.driver.round_store import (
    SHARING_OFF,
    RoundStore,
    connect_to_store,
    ranks_use_agent_store,
    store_sharing_disabled,
)
from llutil.rendezvous.handlers import single_node_handler
from llutil.rendezvous.handlers.single_node_handler import SingleNodeRendezvousHandler


def _of_one_node(_host: str) -> Any:
    handler = SingleNodeRendezvousHandler("run")
    handler.next_rendezvous()
    return handler


def _listening() -> set[tuple[str, int]]:
    found = psutil.Process().net_connections("tcp")
    return {tuple(one.laddr) for one in found if one.status == psutil.CONN_LISTEN}


@pytest.mark.parametrize(
    ("make", "host"),
    [(RoundStore, "127.0.0.1"), (RoundStore, "::1"), (_of_one_node, "127.0.0.1")],
    ids=["IPv4", "IPv6", "one node"],
)
def test_it_listens_at_the_nodes_address_only(make: Callable[[str], Any], host: str) -> None:
    before = _listening()
    store = make(host)
    assert {address for address, _ in _listening() - before} == {host}
    del store
    assert _listening() == before


def test_who_reaches_the_address_can_use_it_and_nobody_at_another() -> None:
    store = RoundStore("127.0.0.2")
    connect_to_store("127.0.0.2", store.port, 20).set("key", "value")
    assert connect_to_store("127.0.0.2", store.port, 20).get("key") == b"value"
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", store.port), 5)
    store.close()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.2", store.port), 5)


def test_under_a_name_it_listens_at_all_addresses() -> None:
    """Other nodes may find another address under that name than this node does."""
    store = RoundStore("localhost")
    for host in ("127.0.0.1", "127.0.0.2"):
        socket.create_connection((host, store.port), 5).close()
    store.close()


def test_an_address_that_does_not_lead_here_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """One of another machine: TEST-NET-1, RFC 5737."""
    monkeypatch.setattr(round_store, "_OWN_CONNECTION", timedelta(seconds=1))
    with pytest.raises(RendezvousError, match="cannot host a TCPStore at its own address"):
        RoundStore("192.0.2.1")


def test_a_node_that_cannot_connect_to_itself_is_told_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where the loopback interface is down."""
    monkeypatch.setattr(round_store, "_OWN_CONNECTION", timedelta(seconds=1))
    monkeypatch.setattr(single_node_handler, "_LOOPBACK", "192.0.2.1")
    handler = single_node_handler.SingleNodeRendezvousHandler("run")
    with pytest.raises(RendezvousError, match=r"cannot host .*; see whether the network interface"):
        handler.next_rendezvous()


@pytest.mark.parametrize("wanted", [None, "0", "1"])
def test_the_users_choice_outlives_launches_that_overlap(
    monkeypatch: pytest.MonkeyPatch, wanted: str | None
) -> None:
    """torch's variable is one for all threads, and the first launch that set it may be the first
    that is done.
    """
    monkeypatch.setenv(SHARING_OFF, wanted or "0")
    if wanted is None:
        monkeypatch.delenv(SHARING_OFF)
    first, second = store_sharing_disabled(), store_sharing_disabled()
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert os.environ[SHARING_OFF] == "1"
    assert ranks_use_agent_store() == (wanted != "1")
    second.__exit__(None, None, None)
    assert os.environ.get(SHARING_OFF) == wanted
