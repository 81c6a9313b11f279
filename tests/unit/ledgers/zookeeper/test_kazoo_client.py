"""What kazoo's client is made with, and what its log shows."""

from __future__ import annotations

import logging
import socket
import ssl
import threading
from binascii import hexlify
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from kazoo.protocol.serialization import SASL, Auth, Connect, Create

from llutil.ledgers.zookeeper.config import ZooKeeperConfig
from llutil.ledgers.zookeeper.kazoo_client import KazooLog, make_client
from tests.support.certificates import Authority, Pair

PASSWORDS = ("hidden-word", "hidden-key", hexlify(b"hidden-key").decode())


@pytest.mark.parametrize("mechanism", ["", "DIGEST-MD5"])
def test_no_password_is_in_kazoos_log(caplog: pytest.LogCaptureFixture, mechanism: str) -> None:
    caplog.set_level(1)
    log = KazooLog()
    config = ZooKeeperConfig.at("a:1", user="ann", password="hidden-word", sasl_mechanism=mechanism)
    client = make_client(config, 10, (7, b"hidden-key"), log)
    connection = client._connection
    connection._write = lambda *_: None
    for request in (
        *(Auth(0, scheme, auth) for scheme, auth in client.auth_data),
        Auth(0, "digest", "ann:hidden-word"),
        SASL(b"hidden-word"),
        Connect(0, 0, 10, 7, b"hidden-key", False),
        Create("/seen", b"", (), 0),
    ):
        connection._submit(request, 1.0)
        log.warning("Exception raised during deserialization of request: %s", request)
    log.log(5, "    Using session_id: %r session_passwd: %s", 7, hexlify(b"hidden-key"))
    text = caplog.text + log.last_warning + repr(vars(client)["auth_data"])
    assert not [word for word in PASSWORDS if word in text]
    assert "/seen" in caplog.text
    assert {record.levelno for record in caplog.records} <= {5, logging.DEBUG, logging.WARNING}


@contextmanager
def tls_server(pair: Pair) -> Iterator[int]:
    """A server that does a TLS handshake with who connects to its port."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair.cert, pair.key)

    def serve() -> None:
        with suppress(OSError):
            while True:
                with listener.accept()[0] as sock, suppress(OSError):
                    context.wrap_socket(sock, server_side=True).close()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


def connect(client: Any, port: int) -> None:
    """Connect as kazoo does."""
    client.handler.create_connection(
        address=("127.0.0.1", port),
        hostname="localhost",
        timeout=10.0,
        use_ssl=client.use_ssl,
        ca=client.ca,
        certfile=client.certfile,
        keyfile=client.keyfile,
        keyfile_password=client.keyfile_password,
        verify_certs=client.verify_certs,
        check_hostname=client.check_hostname,
    ).close()


def test_only_the_authority_in_cacert_is_trusted_and_its_file_is_read_for_each_connection(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    system, own = Authority(tmp_path, "system"), Authority(tmp_path, "own")
    monkeypatch.setenv("SSL_CERT_FILE", str(system.cert))
    cacert = tmp_path / "ca.pem"
    cacert.write_bytes(own.cert.read_bytes())
    client = make_client(
        ZooKeeperConfig.at("localhost:1", cacert=str(cacert)), 10, None, KazooLog()
    )
    with tls_server(own.issue("a", "localhost")) as port:
        connect(client, port)
    with tls_server(system.issue("b", "localhost")) as port:
        with pytest.raises(ssl.SSLCertVerificationError, match="unable to get local issuer"):
            connect(client, port)
        cacert.write_bytes(system.cert.read_bytes())
        connect(client, port)
    with (
        tls_server(system.issue("c", "elsewhere")) as port,
        pytest.raises(ssl.SSLCertVerificationError, match="Hostname mismatch"),
    ):
        connect(client, port)


@pytest.mark.parametrize("answers", [b"", b"\0\0"], ids=["nothing", "a part of an answer"])
def test_a_server_that_accepts_and_never_answers_costs_no_session(
    answers: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llutil.ledgers.zookeeper.kazoo_client._ATTEMPTS", 600)
    monkeypatch.setattr("llutil.ledgers.zookeeper.kazoo_client._SHORTEST", 0.0)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(6)  # less than the session of 8
        config = ZooKeeperConfig.at(f"127.0.0.1:{listener.getsockname()[1]}")
        client = make_client(config, 8, (7, b"its password"), KazooLog())
        client.start_async()
        with listener.accept()[0] as first:
            first.sendall(answers)
            listener.accept()[0].close()  # it tries again long before its session is over
    client.stop()
    client.close()
