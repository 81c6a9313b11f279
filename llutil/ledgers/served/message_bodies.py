"""``bodies``: what the server says to a client, in messages of which none is longer than allowed.

Changes of watched scopes are cut into slices, each in a message of its own, and the client takes
note of them once it has the last one. An answer cannot be cut: if it is too long, the call fails.
This module does no I/O; it may import msgspec, ``llutil.ledgers.errors`` and this folder.
"""

from __future__ import annotations

from msgspec import structs

from llutil.ledgers.errors import LedgerRefused
from llutil.ledgers.served import handshake, messages
from llutil.ledgers.served.messages import Change, Failure, FromServer

__all__ = ["bodies"]


def bodies(message: FromServer, asked: str = "") -> tuple[bytes, ...]:
    """``message`` in JSON, in one message or several. Only the last one has its number. ``asked``
    says in errors what the client asked for.

    A change of one record that alone is too long is returned as it is. No client can write such a
    record, since its request would be too long.
    """
    body = messages.encode(message)
    if len(body) <= handshake.MAX_MESSAGE:
        return (body,)
    if halves := _halves(message.changes):
        first, second = halves
        return (
            *bodies(FromServer(changes=first)),
            *bodies(FromServer(number=message.number, changes=second), asked),
        )
    if message.changes:
        return (body,)
    most = handshake.MAX_MESSAGE
    text = f"{asked}: the answer has {len(body)} bytes; a served ledger sends {most} at most"
    refused = Failure(LedgerRefused.__name__, text)
    return (messages.encode(FromServer(number=message.number, failure=refused)),)


def _halves(changes: tuple[Change, ...]) -> tuple[tuple[Change, ...], tuple[Change, ...]] | None:
    """The first and the second half of ``changes``; None if they cannot be cut."""
    if len(changes) > 1:
        middle = len(changes) // 2
        return changes[:middle], changes[middle:]
    for change in changes:
        put, gone = len(change.put) // 2, len(change.gone) // 2
        if put or gone:
            first = structs.replace(
                change, put=change.put[:put], gone=change.gone[:gone], unfinished=True
            )
            second = structs.replace(
                change, put=change.put[put:], gone=change.gone[gone:], whole=False
            )
            return (first,), (second,)
    return None
