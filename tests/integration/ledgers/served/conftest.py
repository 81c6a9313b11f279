"""A server of a ledger in the test's own process, and its clients."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field

import pytest

from llutil.backends.endpoints import Endpoint
from llutil.ledgers.served.config import ServedConfig
from llutil.ledgers.served.ledger import ServedLedger
from llutil.ledgers.served.server import LedgerServer
from tests.support.ledger_contract import Changes, Node

SECRET = "open sesame"


@dataclass
class Place:
    """Where a server is, and what is closed at the end."""

    port: int
    stack: ExitStack
    servers: list[LedgerServer] = field(default_factory=list)

    def serve(self) -> LedgerServer:
        """A server, at the same port as the one before."""
        server = LedgerServer("127.0.0.1", self.port, secret=SECRET, run_id="job")
        self.port = server.port
        self.stack.callback(server.close)
        self.servers.append(server)
        return server

    def config(self, **changes: object) -> ServedConfig:
        """That of a client."""
        port = changes.pop("port", self.port)
        assert isinstance(port, int)
        endpoint = Endpoint("127.0.0.1", port)
        values = {"secret": SECRET, "run_id": "job", **changes}
        return ServedConfig(endpoint=endpoint, **values)  # type: ignore[arg-type]

    def node(self, ttl: float = 10.0, **changes: object) -> Node:
        """A client."""
        notes = Changes()
        ledger = ServedLedger(self.config(**changes), notes)
        self.stack.callback(ledger.close)
        return Node(ledger, notes, ttl)


@pytest.fixture
def place(quiet: None) -> Iterator[Place]:
    """A place without a server yet."""
    with ExitStack() as stack:
        yield Place(0, stack)


@pytest.fixture
def server(place: Place) -> LedgerServer:
    """The server there."""
    return place.serve()
