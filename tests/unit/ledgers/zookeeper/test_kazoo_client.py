"""What kazoo's client is made with, and what its log shows."""

from __future__ import annotations

import logging
from binascii import hexlify

import pytest
from kazoo.protocol.serialization import SASL, Auth, Connect, Create

from llutil.ledgers.zookeeper.config import ZooKeeperConfig
from llutil.ledgers.zookeeper.kazoo_client import KazooLog, make_client

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
