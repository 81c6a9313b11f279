"""Finds out whether a store can be used: ``python -m llutil.ledgers.connection_test``, in a process
of its own.

It reads one JSON object, ``{"backend": "etcd", "endpoint": "host:port,...", "options": {...}}``,
from standard input, and writes one, ``{"fits": true, "text": "..."}``, as the last line of
standard output. It does what a node does: it opens a session, writes a record of it, reads that
back, and takes both away again. So it also finds a user without rights on the namespace, and a time
of leases that the store does not grant. Whoever asks needs neither grpc nor kazoo in his own
process.
"""

from __future__ import annotations

import json
import secrets
import sys
import time
from collections.abc import Mapping
from typing import Any

from llutil.backends.table import BACKENDS
from llutil.errors import LaunchError
from llutil.ledgers.open_ledger import opener

__all__ = ["probe"]

_WITHIN = 10.0  # seconds for everything
_FOLDER = "probes/"


def probe(backend: str, endpoint: str, options: Mapping[str, Any]) -> str:
    """Use a store for a moment, as a node would; a sentence about what was done.

    :raises LaunchError: it cannot be used; the text says why.
    """
    values = BACKENDS[backend].values(options, "the connection")
    open_ledger = opener(BACKENDS[backend], endpoint, values)
    started = time.monotonic()
    deadline = started + _WITHIN
    ledger = open_ledger(lambda: None)
    try:
        session = ledger.open_session(values["lease_ttl"], deadline=deadline)
        try:
            value = secrets.token_hex(8).encode()
            record = session.join(_FOLDER, value.decode(), value, deadline=deadline).record
            found = ledger.read(record.key, deadline=deadline).get(record.key)
        finally:
            session.release(deadline=deadline)
    finally:
        ledger.close()
    if found is None or found.value != value:
        raise LaunchError(f"{ledger} did not give back what was written to it just before")
    took = time.monotonic() - started
    return f"{ledger} can be used: wrote and read a record in {took:.2f} s"


def _answer(asked: Mapping[str, Any]) -> dict[str, Any]:
    try:
        return {"fits": True, "text": probe(**asked)}
    except LaunchError as error:
        return {"fits": False, "text": str(error)}


if __name__ == "__main__":
    sys.stdout.write("\n" + json.dumps(_answer(json.load(sys.stdin))) + "\n")
