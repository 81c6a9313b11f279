"""Finds out whether an etcd can be used: ``python -m llutil.ledgers.etcd.probe``, in a process of its own.

It reads one JSON object, ``{"endpoints": "host:port,...", ...}`` with the fields of ``EtcdConfig`` beside it,
from standard input, and writes one, ``{"fits": true, "text": "..."}``, as the last line of standard output. It does what a node
does: it opens a session, writes a record of it, reads that back, and takes both away again. So it also finds
a user without rights on the namespace. Whoever asks needs neither grpc nor etcd3 in his own process.
"""

from __future__ import annotations

import json
import secrets
import sys
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from llutil.errors import LaunchError

if TYPE_CHECKING:
    from llutil.ledgers.etcd.config import EtcdConfig

__all__ = ["probe"]

_WITHIN = 10.0  # seconds for everything
_TTL = 10.0  # seconds that the session would live if this process were killed
_FOLDER = "probes/"


def probe(config: EtcdConfig) -> str:
    """Use the etcd that ``config`` means for a moment; a sentence about what was done.

    :raises LaunchError: it cannot be used; the text says why.
    """
    from llutil.ledgers.etcd.ledger import EtcdLedger

    started = time.monotonic()
    deadline = started + _WITHIN
    ledger = EtcdLedger(config, lambda: None)
    try:
        session = ledger.open_session(_TTL, deadline=deadline)
        try:
            value = secrets.token_hex(8).encode()
            record = session.join(_FOLDER, value.decode(), value, deadline=deadline).record
            found = ledger.read(record.key, deadline=deadline).get(record.key)
        finally:
            session.release(deadline=deadline)
    finally:
        ledger.close()
    if found is None or found.value != value:
        raise LaunchError(f"{config} did not give back what was written to it just before")
    took = time.monotonic() - started
    return f"{config} can be used: wrote and read a record of namespace {config.namespace!r} in {took:.2f} s"


def _answer(fields: Mapping[str, Any]) -> dict[str, Any]:
    from llutil.ledgers.endpoints import parse_endpoints
    from llutil.ledgers.etcd.config import EtcdConfig

    try:
        others = {name: value for name, value in fields.items() if name != "endpoints"}
        config = EtcdConfig(endpoints=parse_endpoints(fields["endpoints"]), **others)
        return {"fits": True, "text": probe(config)}
    except LaunchError as error:
        return {"fits": False, "text": str(error)}


if __name__ == "__main__":
    sys.stdout.write("\n" + json.dumps(_answer(json.load(sys.stdin))) + "\n")
