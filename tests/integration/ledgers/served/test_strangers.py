"""Who reaches the port of a served ledger without knowing its secret, or speaks nonsense: is told
why, costs nothing, and harms nobody.
"""

from __future__ import annotations

import json
import resource
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial

import pytest

from llutil.ledgers import LedgerRefused
from llutil.ledgers.served import handshake, server_connection
from llutil.ledgers.served import server as server_module
from llutil.ledgers.served.handshake import RefusedError, WrongServerError, frame
from llutil.ledgers.served.server import LedgerServer
from tests.integration.ledgers.conftest import wait_for_reason
from tests.integration.ledgers.served.conftest import SECRET, Place
from tests.support.ledger_contract import soon, wait_until
from tests.support.threads import new_threads

pytestmark = pytest.mark.fault


def _connect(server: LedgerServer) -> socket.socket:
    return socket.create_connection(("127.0.0.1", server.port), 30)


def _is_cut_off(connection: socket.socket) -> bool:
    try:
        while connection.recv(4096):
            pass
    except ConnectionResetError:
        pass
    return True


@contextmanager
def _member(
    server: LedgerServer, greeting: dict[str, str] | None = None
) -> Iterator[socket.socket]:
    """A connection of somebody who knows the secret."""
    connection = handshake.connect("127.0.0.1", server.port, SECRET, soon())
    with connection:
        hello = {"client": "c" * 32, "namespace": "n", **(greeting or {})}
        connection.sendall(frame(json.dumps(hello).encode()))
        connection.settimeout(30)
        yield connection


@pytest.mark.parametrize(
    "sent",
    [
        b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"\x00" * 1000,
        b"\xff" * 1000,
        (1 << 30).to_bytes(4, "big") + b"x" * 4096,
        frame(b"{}"),
        frame(b"[" * 500),
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",  # TLS
    ],
)
def test_nonsense_is_cut_off_at_once(place: Place, server: LedgerServer, sent: bytes) -> None:
    node = place.node()
    node.join("a")
    with _connect(server) as stranger:
        stranger.sendall(sent)
        assert _is_cut_off(stranger)
    assert node.read("members/") == {"members/a": b"me"}


def test_silence_is_cut_off_and_many_strangers_cost_no_thread_and_lock_nobody_out(
    place: Place, server: LedgerServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_module, "_MOST_STRANGERS", 20)
    with new_threads() as found, ExitStack() as stack:
        crowd = [stack.enter_context(_connect(server)) for _ in range(60)]
        assert place.node().join("a").record.name == "a", "somebody else is let in meanwhile"
        wait_until(lambda: len(server.strangers) <= 20)
        assert len(found()) == 2, "the client's own two"
        assert all(map(_is_cut_off, crowd[:40])), "the oldest went"
        monkeypatch.setattr(server_connection, "_PROVED", 0.1)
        with _connect(server) as late:
            assert _is_cut_off(late)


def test_a_message_of_a_gigabyte_takes_no_memory_and_ends_that_client_alone(
    place: Place, server: LedgerServer, caplog: pytest.LogCaptureFixture
) -> None:
    node = place.node()
    node.join("a")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for body in (
        (1 << 30).to_bytes(4, "big") + b"x" * (1 << 20),
        frame(b"nonsense"),
        frame(b'{"number": 1, "call": {"do": "evil"}}'),
        frame(b'{"number": "x"}'),
        frame(b"[" * 1_000_000),
    ):
        with _member(server) as client:
            client.sendall(body)
            assert _is_cut_off(client)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 1 << 16  # 64 MiB
    assert caplog.text.count("a client of the served ledger is cut off") == 5
    assert node.read("members/") == {"members/a": b"me"}


def test_a_value_that_is_too_large_is_refused_before_it_is_sent(
    place: Place, server: LedgerServer
) -> None:
    node = place.node()
    with pytest.raises(LedgerRefused, match=r"a message of \d+ bytes; .* takes 16777216 at most"):
        node.join("a", b"x" * (1 << 24))
    node.join("a")


def test_another_secret_is_refused_by_name_and_no_secret_is_shown(
    place: Place, server: LedgerServer
) -> None:
    node = place.node(secret="guess")
    began = time.monotonic()
    for _ in range(2):
        with pytest.raises(LedgerRefused, match="does not accept this node's secret") as caught:
            node.read("members/")
        assert "guess" not in str(caught.value)
        assert SECRET not in str(caught.value)
    assert time.monotonic() - began < 20, "it did not wait for a deadline"
    assert "guess" not in repr(place.config(secret="guess"))


def test_the_ledger_of_another_job_is_refused_by_name(place: Place, server: LedgerServer) -> None:
    with pytest.raises(LedgerRefused, match=r"run 'job' and not of 'other'; each job needs a port"):
        place.node(run_id="other").read("members/")
    place.node(run_id="").read("members/")


@pytest.mark.parametrize("letter", ["x", "ä"])
def test_a_run_id_may_be_long_and_is_refused_by_name_too(place: Place, letter: str) -> None:
    run_id = letter * 600
    server = LedgerServer("127.0.0.1", 0, secret=SECRET, run_id=run_id)
    place.stack.callback(server.close)
    assert place.node(port=server.port, run_id=run_id).read("members/") == {}
    with pytest.raises(LedgerRefused, match=f"it is that of run '{letter * 80}"):
        place.node(port=server.port, run_id="other").read("members/")


def test_a_client_of_another_version_is_refused_by_name(
    server: LedgerServer,
) -> None:
    greeting = {"llutil_ledger": handshake.VERSION + 1, "nonce": "0" * 64}
    with _connect(server) as newer:
        newer.sendall(frame(json.dumps(greeting).encode()))
        with pytest.raises(RefusedError, match=r"version 1 .* version 2: run the same version"):
            handshake.heard(newer, "there", soon())


def test_what_else_listens_there_is_told_from_a_ledger(place: Place) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]

        def answer() -> None:
            connection, _ = other.accept()
            connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            connection.close()

        thread = threading.Thread(target=answer)
        thread.start()
        with pytest.raises(WrongServerError, match="is no ledger of llutil"):
            handshake.knock("127.0.0.1", port, SECRET, 20)
        thread.join()


def test_nobody_there_is_said_by_the_deadline(place: Place) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        node = place.node(port=port)
        wait_for_reason(partial(node.ledger.read, "members/"), "nobody serves a ledger there", 0.5)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "*"])
def test_an_endpoint_that_is_everybodys_is_refused(host: str) -> None:
    from llutil.backends.endpoints import Endpoint
    from llutil.errors import ConfigError
    from llutil.ledgers.served.config import ServedConfig

    with pytest.raises(ConfigError, match="is every node's address; wanted that of the one node"):
        ServedConfig(endpoint=Endpoint(host, 29410))
