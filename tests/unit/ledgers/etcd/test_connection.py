"""The connection to an etcd: TLS files that are rotated are used, and what failed calls tell."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest

from llutil.backends.endpoints import Endpoint
from llutil.ledgers.errors import LedgerRefused, LedgerUnavailable
from llutil.ledgers.etcd import connection as connection_module
from llutil.ledgers.etcd.config import EtcdConfig
from llutil.ledgers.etcd.connection import Connection
from llutil.ledgers.etcd.etcd3_import import etcdrpc
from tests.support.certificates import Authority, Pair


@contextmanager
def server(pair: Pair, authority: Authority) -> Iterator[int]:
    """A gRPC server that wants certificates of ``authority`` and knows no method; its port."""
    credentials = grpc.ssl_server_credentials(
        [(pair.key.read_bytes(), pair.cert.read_bytes())], authority.cert.read_bytes(), True
    )
    with ThreadPoolExecutor(1) as pool:
        serving = grpc.server(pool)
        port = serving.add_secure_port("127.0.0.1:0", credentials)
        serving.start()
        try:
            yield port
        finally:
            serving.stop(None).wait()


def rotate(folder: Path, authority: Authority) -> dict[str, str]:
    """Put files of ``authority`` in place; their paths, by the option's name."""
    pair = authority.issue("client", "client")
    found = {"cacert": authority.cert, "cert": pair.cert, "key": pair.key}
    for name, path in found.items():
        (folder / f"{name}.pem").write_bytes(path.read_bytes())
    return {name: str(folder / f"{name}.pem") for name in found}


@dataclass
class Clock:
    """The time of a connection. A test moves it on; it stands still meanwhile, unless it
    ``runs``.
    """

    runs: bool = False
    moved: float = 0.0

    def monotonic(self) -> float:
        return self.moved + (time.monotonic() if self.runs else 0.0)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(connection_module, "time", clock)
    return clock


def ask(connection: Connection, clock: Clock) -> Any:
    request, deadline = etcdrpc.RangeRequest(key=b"x"), clock.monotonic() + 60
    return connection.call("read", lambda channel: channel.kv.Range, request, deadline=deadline)


def ask_until(connection: Connection, clock: Clock, tells: Callable[[str], bool]) -> Any:
    """The deadline comes with the first failed attempt that ``tells`` what is waited for."""
    diagnose = connection.diagnose

    def diagnose_and_end(error: grpc.RpcError) -> Any:
        diagnosis = diagnose(error)
        clock.moved += 60 if tells(diagnosis.text) else 0
        return diagnosis

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(connection, "diagnose", diagnose_and_end)
        return ask(connection, clock)


def test_rotated_tls_files_are_used_when_the_server_is_connected_to_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, clock: Clock
) -> None:
    clock.runs = True
    old, new = Authority(tmp_path, "old"), Authority(tmp_path, "new")
    files = rotate(tmp_path, old)
    with server(new.issue("server", "127.0.0.1"), new) as port:
        endpoint = Endpoint("127.0.0.1", port)
        connection = Connection(EtcdConfig(endpoints=(endpoint,), **files))
        try:
            with pytest.raises(LedgerRefused, match="not signed by the CA"):
                ask(connection, clock)
            connection._worked = True  # as if it had been there before its certificates changed
            with pytest.raises(LedgerUnavailable, match="not signed by the CA"):
                ask_until(connection, clock, lambda text: "not signed by the CA" in text)
            Path(files["cert"]).write_text("half of it")
            with pytest.raises(LedgerUnavailable):
                ask_until(connection, clock, lambda _: "cannot be used yet" in caplog.text)
            assert len([text for text in caplog.messages if "cannot be used yet" in text]) == 1
            rotate(tmp_path, new)
            connection._worked = False
            with pytest.raises(LedgerRefused, match="no etcd v3 API"):  # it is connected
                ask(connection, clock)
        finally:
            connection.close()


class Said(grpc.RpcError):
    """What a call ended with."""

    def __init__(self, code: grpc.StatusCode, details: str) -> None:
        self._said = code, details

    def code(self) -> grpc.StatusCode:
        return self._said[0]

    def details(self) -> str:
        return self._said[1]


@pytest.mark.parametrize(
    ("begins", "lasts", "given"),
    [
        pytest.param(0.5, 0.7, 0.7, id="cut short"),
        pytest.param(0.0, 3.0, 1.0, id="this process was stopped"),
    ],
)
def test_a_last_attempt_that_ends_with_the_deadline_hides_no_answer(
    clock: Clock, begins: float, lasts: float, given: float
) -> None:
    connection = Connection(EtcdConfig(endpoints=(Endpoint("127.0.0.1", 1),)))
    limits: list[float] = []

    def full_then_late(_request: Any, *, timeout: float, **_: Any) -> None:
        limits.append(timeout)
        if len(limits) == 1:
            clock.moved += begins
            raise Said(grpc.StatusCode.RESOURCE_EXHAUSTED, "etcdserver: database space exceeded")
        clock.moved += lasts
        raise Said(grpc.StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded")

    with pytest.raises(LedgerUnavailable, match="database space exceeded") as caught:
        connection.call("write", lambda _channel: full_then_late, None, deadline=1.2)
    assert "no answer in time" not in str(caught.value)
    assert limits == pytest.approx([1.0, given])
    connection.close()


def test_an_endpoint_that_never_answered_is_told_to_be_silent(clock: Clock) -> None:
    connection = Connection(EtcdConfig(endpoints=(Endpoint("127.0.0.1", 1),)))

    def late(_request: Any, *, timeout: float, **_: Any) -> None:
        clock.moved += timeout
        raise Said(grpc.StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded")

    with pytest.raises(LedgerUnavailable, match=r"1 attempts; 127\.0\.0\.1:1: no answer in time"):
        connection.call("write", lambda _channel: late, None, deadline=0.2)
    connection.close()
