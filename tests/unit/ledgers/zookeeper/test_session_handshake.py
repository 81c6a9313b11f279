"""What a session's calls say of an endpoint that gives no answer."""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import pytest

from llutil.backends.endpoints import Endpoint
from llutil.errors import ConfigError
from llutil.ledgers.errors import LedgerUnavailable
from llutil.ledgers.keys import Namespace
from llutil.ledgers.zookeeper import session_handshake
from llutil.ledgers.zookeeper.config import ZooKeeperConfig
from llutil.ledgers.zookeeper.kazoo_session import KazooSession
from llutil.ledgers.zookeeper.session import open_session
from llutil.ledgers.zookeeper.znode_paths import ZnodePaths


class Clock:
    """The time of a handshake. Nobody is short of it, until it leaps to what is ``left`` before the
    deadline: in the pause after the first attempt, if not before.
    """

    def __init__(self) -> None:
        self.left = 0.3
        self._moved = 0.0
        self.deadline = self.monotonic() + 1000

    def monotonic(self) -> float:
        return time.monotonic() + self._moved

    def leap(self) -> None:
        self._moved += max(0.0, self.deadline - self.left - self.monotonic())

    def sleep(self, seconds: float) -> None:
        self.leap()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(session_handshake, "time", clock)
    monkeypatch.setattr(session_handshake, "_ENDPOINT_TIMEOUT", 30.0)
    return clock


def opens(config: ZooKeeperConfig, deadline: float) -> None:
    session_handshake.open_session(config, 3, deadline=deadline)


def ends(config: ZooKeeperConfig, deadline: float) -> None:
    session_handshake.end_session(config, 1, bytes(16), deadline=deadline)


def closes(sock: socket.socket) -> None:
    sock.recv(1024)


def grant(seconds: int, sock: socket.socket) -> None:
    answer = struct.pack(">iiqi16s?", 0, seconds * 1000, 7, 16, bytes(16), False)
    sock.sendall(struct.pack(">i", len(answer)) + answer)


@contextmanager
def endpoint(*acts: Callable[[socket.socket], None]) -> Iterator[ZooKeeperConfig]:
    """A server that does each of ``acts`` with one connection, and says nothing on later ones."""

    def serve() -> None:
        with suppress(OSError):
            for act in acts:
                with listener.accept()[0] as sock:
                    act(sock)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield ZooKeeperConfig.at(f"127.0.0.1:{listener.getsockname()[1]}")
        listener.shutdown(socket.SHUT_RDWR)
    thread.join(10)


@pytest.mark.parametrize("act", [opens, ends])
@pytest.mark.parametrize("left", [0.3, -1.0], ids=["an attempt", "a pause"])
def test_what_the_deadline_cuts_short_hides_no_earlier_reason(
    act: Callable[[ZooKeeperConfig, float], None], left: float, clock: Clock
) -> None:
    clock.left = left
    with (
        endpoint(closes) as config,
        pytest.raises(LedgerUnavailable, match="it closed the connection; if it speaks TLS"),
    ):
        act(config, clock.deadline)


@pytest.mark.parametrize("act", [opens, ends])
def test_an_attempt_in_which_this_process_was_stopped_hides_no_earlier_reason(
    act: Callable[[ZooKeeperConfig, float], None], clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = session_handshake._connect
    clock.left = -1.0
    attempts: list[Endpoint] = []

    def connect(place: Endpoint, config: ZooKeeperConfig, deadline: float) -> socket.socket:
        attempts.append(place)
        if len(attempts) == 2:
            clock.leap()
        return real(place, config, deadline)

    monkeypatch.setattr(session_handshake, "_connect", connect)
    monkeypatch.setattr(clock, "sleep", lambda _: None)
    with (
        endpoint(closes) as config,
        pytest.raises(LedgerUnavailable, match="it closed the connection; if it speaks TLS"),
    ):
        act(config, clock.deadline)


def test_a_server_that_is_lost_after_it_granted_another_ttl_does_not_hide_that_it_did(
    clock: Clock,
) -> None:
    def grants_late(sock: socket.socket) -> None:
        sock.recv(1024)
        clock.leap()
        grant(10, sock)

    with (
        endpoint(grants_late) as config,
        pytest.raises(ConfigError, match=r"lease_ttl is 3 s, but .* grants 10 s"),
    ):
        open_session(config, ZnodePaths(Namespace("a")), 3, lambda: None, deadline=clock.deadline)


def test_a_call_whose_last_attempt_has_no_answer_says_why_the_one_before_failed() -> None:
    def grants_and_closes(sock: socket.socket) -> None:
        sock.recv(1024)
        grant(40, sock)
        sock.recv(1024)

    with endpoint(grants_and_closes) as config:
        session = KazooSession(config, 40, lambda: None)
        deadline = time.monotonic() + 60

        def read(again: bool) -> object:
            return session.ask(
                lambda it: it.get_async("/a"), deadline=time.monotonic() if again else deadline
            )

        try:
            with pytest.raises(LedgerUnavailable, match=r"before that: ConnectionLoss"):
                session.retry("read", read, deadline=deadline)
        finally:
            session.close(deadline=time.monotonic() + 5)
