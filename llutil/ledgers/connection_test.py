"""Checks whether a store can be used: ``python -m llutil.ledgers.connection_test``.

It runs in a process of its own, so the process that asks needs neither grpc nor kazoo.

It reads one JSON object from standard input: ``{"backend": "etcd", "endpoint": "host:port,...",
"options": {...}}``. It writes one as the last line of standard output: ``{"fits": true, "text":
"..."}``. It does what a node does: it opens a session, writes a record, reads it back, and removes
both. So it also finds a user without permission on the namespace, and a ttl that the store does not
grant.
"""

from __future__ import annotations

import json
import secrets
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from llutil.backends.table import BACKENDS
from llutil.errors import LaunchError
from llutil.ledgers.open_ledger import ledger_opener

__all__ = ["check_connection"]

# Seconds for all steps together.
_TIMEOUT = 10.0
_TEST_FOLDER = "probes/"


def check_connection(backend: str, endpoint: str, options: Mapping[str, Any]) -> str:
    """Use a store as a node does; return a sentence about it.

    :raises LaunchError: the store cannot be used; the text says why.
    """
    values = BACKENDS[backend].values(options, "the connection")
    open_ledger = ledger_opener(BACKENDS[backend], endpoint, values)
    started = time.monotonic()
    deadline = started + _TIMEOUT
    ledger = open_ledger(lambda: None)
    try:
        session = ledger.open_session(values["lease_ttl"], deadline=deadline)
        try:
            value = secrets.token_hex(8).encode()
            record = session.join(_TEST_FOLDER, value.decode(), value, deadline=deadline).record
            found = ledger.read(record.key, deadline=deadline).get(record.key)
        except BaseException:
            with suppress(LaunchError):  # it expires; what failed first is told
                session.release(deadline=deadline)
            raise
        session.release(deadline=deadline)
    finally:
        ledger.close()
    if found is None or found.value != value:
        raise LaunchError(f"{ledger} did not return the record that was just written to it")
    took = time.monotonic() - started
    return f"{ledger} can be used: wrote and read a record in {took:.2f} s"


def _answer(request: Mapping[str, Any]) -> dict[str, Any]:
    try:
        return {"fits": True, "text": check_connection(**request)}
    except LaunchError as error:
        return {"fits": False, "text": str(error)}


if __name__ == "__main__":
    sys.stdout.write("\n" + json.dumps(_answer(json.load(sys.stdin))) + "\n")
