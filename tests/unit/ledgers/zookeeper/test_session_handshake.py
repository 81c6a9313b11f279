"""What a session's calls say of an endpoint that gives no answer."""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import pytest

from llutil.errors import ConfigError
from llutil.ledgers.errors import LedgerUnavailable
from llutil.ledgers.keys import Namespace
from llutil.ledgers.zookeeper import session_handshake
from llutil.ledgers.zookeeper.config import ZooKeeperConfig
from llutil.ledgers.zookeeper.kazoo_session import KazooSession
from llutil.ledgers.zookeeper.session import open_session
from llutil.ledgers.zookeeper.znode_paths import ZnodePaths


def opens(config: ZooKeeperConfig) -> None:
    session_handshake.open_session(config, 3, deadline=time.monotonic() + 0.6)


def ends(config: ZooKeeperConfig) -> None:
    session_handshake.end_session(config, 1, bytes(16), deadline=time.monotonic() + 0.6)


def closes(sock: socket.socket) -> None:
    sock.recv(1024)


def grants_ten_seconds_and_then_closes(sock: socket.socket) -> None:
    sock.recv(1024)
    answer = struct.pack(">iiqi16s?", 0, 10_000, 7, 16, bytes(16), False)
    sock.sendall(struct.pack(">i", len(answer)) + answer)
    sock.recv(1024)


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
def test_an_attempt_that_the_deadline_cuts_short_hides_no_earlier_reason(
    act: Callable[[ZooKeeperConfig], None],
) -> None:
    with (
        endpoint(closes) as config,
        pytest.raises(LedgerUnavailable, match="it closed the connection; if it speaks TLS"),
    ):
        act(config)


@pytest.mark.parametrize("act", [opens, ends])
def test_a_pause_that_lasts_past_the_deadline_hides_no_earlier_reason(
    act: Callable[[ZooKeeperConfig], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    sleep = time.sleep
    monkeypatch.setattr(session_handshake.time, "sleep", lambda seconds: sleep(seconds + 1))
    with (
        endpoint(*[closes] * 9) as config,
        pytest.raises(LedgerUnavailable, match="it closed the connection; if it speaks TLS"),
    ):
        act(config)


def test_a_server_that_is_lost_after_it_granted_another_ttl_does_not_hide_that_it_did() -> None:
    with (
        endpoint(grants_ten_seconds_and_then_closes) as config,
        pytest.raises(ConfigError, match=r"lease_ttl is 3 s, but .* grants 10 s"),
    ):
        open_session(
            config, ZnodePaths(Namespace("a")), 3, lambda: None, deadline=time.monotonic() + 0.6
        )


def test_a_call_whose_last_attempt_has_no_answer_says_why_the_one_before_failed() -> None:
    with endpoint(grants_ten_seconds_and_then_closes) as config:
        session = KazooSession(config, 10, lambda: None)
        deadline = time.monotonic() + 2
        try:
            with pytest.raises(LedgerUnavailable, match=r"before that: ConnectionLoss"):
                session.retry(
                    "read",
                    lambda _: session.ask(lambda it: it.get_async("/a"), deadline=deadline),
                    deadline=deadline,
                )
        finally:
            session.close(deadline=time.monotonic() + 5)
