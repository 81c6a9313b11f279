"""Real stores for the tests of this folder. After each test, no socket may be left and nothing
printed.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path

import pytest

from llutil.backends.endpoints import Endpoint
from llutil.ledgers import Ledger, LedgerUnavailable, Session, SessionLost
from tests.support.etcd_servers import EtcdServer
from tests.support.ledger_contract import World, soon, wait_until
from tests.support.served_servers import ServedServer
from tests.support.stores import ETCD, Server, Store
from tests.support.zookeeper_servers import ZooKeeperServer

# What gRPC may print about a server.
_GRPC = (
    *("Handshake failed", "Got goaway"),
    *("Corruption detected", "OPENSSL_internal", "Decryption error"),  # refused after a handshake
)
# Seconds for gRPC to close its sockets.
_SOCKETS_TIMEOUT = 30.0


def _sockets() -> int:
    count = 0
    for fd in Path("/proc/self/fd").iterdir():
        with suppress(OSError):  # closed in the meantime
            count += str(fd.readlink()).startswith("socket:")
    return count


@pytest.fixture(autouse=True)
def quiet(capfd: pytest.CaptureFixture[str], request: pytest.FixtureRequest) -> Iterator[None]:
    """After the test, no socket is left and nothing was printed, except what gRPC says of
    servers.
    """
    before = _sockets()
    yield
    deadline = time.monotonic() + _SOCKETS_TIMEOUT
    while (left := _sockets() - before) > 0 and time.monotonic() < deadline:
        time.sleep(0.02)
    assert left <= 0, f"{left} sockets are left"
    printed = capfd.readouterr().err.splitlines()
    assert [line for line in printed if not any(word in line for word in _GRPC)] == []


@pytest.fixture
def store() -> Store:
    """The store of the test. A test for several stores, or for another one, overrides it by a
    parameter.
    """
    return ETCD


@pytest.fixture
def server(
    store: Store,
    shared_etcd: EtcdServer,
    shared_served: ServedServer,
    shared_zookeeper: ZooKeeperServer,
) -> Server:
    """The shared server of that store. All are started, because a server that a test starts by
    itself ends with that test.
    """
    servers = {"etcd": shared_etcd, "served": shared_served, "zookeeper": shared_zookeeper}
    return servers[store.name]


@pytest.fixture
def world(store: Store, server: Server, quiet: None) -> Iterator[World]:
    """Nodes on that server, in a namespace of this test only."""
    with store.world(server.endpoint).open() as world:
        yield world


def world_on(
    *endpoints: Endpoint,
    ttl: float = 10.0,
    namespace: str = "",
    settings: Mapping[str, str] | None = None,
) -> World:
    """Nodes on an etcd, with these settings of ``EtcdConfig``."""
    return ETCD.world(*endpoints, ttl=ttl, namespace=namespace, settings=settings)


def joined(ledger: Ledger, ttl: float) -> Session:
    """A session of a short ttl that has put the record members/a. One that was over before, on a
    machine that stalls, is replaced.
    """
    deadline = soon(60)
    while True:
        try:
            session = ledger.open_session(ttl, deadline=soon())
            session.join("members/", "a", b"me", deadline=soon())
        except (LedgerUnavailable, SessionLost):
            if time.monotonic() > deadline:
                raise
        else:
            return session


def wait_for_reason(call: Callable[..., object], reason: str, seconds: float) -> None:
    """Wait until the error of ``call``, which has so many ``seconds`` each time, says ``reason``.
    On a machine that stalls, a call may have no time to find out why nobody answers.
    """

    def is_told() -> bool:
        with pytest.raises(LedgerUnavailable) as raised:
            call(deadline=soon(seconds))
        return re.search(reason, str(raised.value)) is not None

    wait_until(is_told)
