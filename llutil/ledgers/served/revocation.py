"""Ends a lease of a served ledger with nothing but the standard library. A guardian does this for a
node that was killed.

This module may import the standard library and plain modules of ``llutil``, because it runs in an
interpreter without site-packages. It starts no thread.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from llutil.errors import RendezvousError
from llutil.ledgers.lease_revocation import LeaseRevocation
from llutil.ledgers.served import handshake
from llutil.ledgers.served.handshake import HandshakeError

if TYPE_CHECKING:
    from llutil.ledgers.served.config import ServedConfig

__all__ = ["perform", "revocation"]

# Seconds for all of it.
_TIMEOUT = 3.0


def revocation(config: ServedConfig, lease: str) -> LeaseRevocation:
    """How to end ``lease`` in the ledger of ``config``."""
    return LeaseRevocation(
        __name__,
        {
            "lease": lease,
            "host": config.endpoint.host,
            "port": config.endpoint.port,
            "secret": config.secret,
            "namespace": config.namespace,
            "run_id": config.run_id,
        },
    )


def perform(argument: Mapping[str, Any]) -> None:
    """End the lease. It is no error if it is over already.

    :raises RendezvousError: the server did not do it.
    """
    host, port, lease = argument["host"], argument["port"], argument["lease"]
    deadline = time.monotonic() + _TIMEOUT
    try:
        with handshake.connect(host, port, argument["secret"], deadline) as connection:
            hello = {"client": secrets.token_hex(16)}
            hello |= {key: argument[key] for key in ("namespace", "run_id")}
            request = {"number": 1, "call": {"do": "endlease", "lease": lease}}
            connection.sendall(handshake.frame(json.dumps(hello).encode()))
            handshake.heard(connection, host, deadline)
            connection.sendall(handshake.frame(json.dumps(request).encode()))
            answer = handshake.heard(connection, host, deadline)
    except (OSError, HandshakeError) as error:
        raise RendezvousError(
            f"the lease of a node that was killed could not be ended and will expire ({error})"
        ) from None
    if failure := answer.get("failure"):
        raise RendezvousError(
            f"the server did not end the lease of a node that was killed: {failure}"
        )
