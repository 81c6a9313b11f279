"""What a client and the server of a ledger say to each other once both have proved themselves.

The client's first message is a ``Hello``, and the server's a ``Welcome``. Then the client sends
``Request``s. The server answers those that have a number, and tells of changes of watched scopes,
in ``FromServer``s. A request that was sent again, after the connection was lost, is answered as the
first time: the server keeps answers until the client says, with ``acknowledged``, that it needs
them no more.

Values are base64 in JSON. This module may import the standard library, msgspec and
``llutil.ledgers.protocol``.
"""

from __future__ import annotations

from typing import Any

import msgspec

from llutil.ledgers.protocol import Created, Exists, Joined, Record, View

__all__ = [
    "Call",
    "Change",
    "Create",
    "Creation",
    "Delete",
    "EndLease",
    "Failure",
    "FromServer",
    "GrantLease",
    "Hello",
    "Join",
    "KeepAlive",
    "OpenSession",
    "Read",
    "Renew",
    "Request",
    "SessionCall",
    "Unwatch",
    "Watch",
    "Welcome",
    "convert",
    "decode",
    "encode",
    "result",
]


class Hello(msgspec.Struct, frozen=True, kw_only=True):
    """Who a client is. ``client`` is a name that it has chosen at random for its lifetime.
    ``run_id``: the job that the ledger has to be of; empty: any.
    """

    client: str
    namespace: str
    run_id: str = ""


class Welcome(msgspec.Struct, frozen=True, kw_only=True):
    """``server`` is a name that this server has chosen at random for its lifetime. ``known``:
    whether it remembers the client, and the answers that the client did not get.
    """

    server: str
    known: bool


class _Call(msgspec.Struct, frozen=True, tag_field="do", tag=str.lower):
    """One call of the ledger, of a session of the client, or about a watch."""


class OpenSession(_Call, frozen=True):
    """Start a session; the answer is its lease."""

    ttl: float


class Read(_Call, frozen=True):
    """Read a scope; the answer is a ``View``."""

    scope: str


class Watch(_Call, frozen=True):
    """Watch a scope, under a number of the client's. ``known``: the records that the client knows,
    each with its ``created``. With the answer comes what has changed from there.
    """

    number: int
    scope: str
    known: dict[str, int]


class Unwatch(_Call, frozen=True):
    """Stop a watch."""

    number: int


class EndLease(_Call, frozen=True):
    """End a session or lease."""

    lease: str


class Join(_Call, frozen=True):
    """Put the member record of ``session``; the answer is a ``Joined``."""

    session: str
    folder: str
    name: str
    value: bytes
    reads: tuple[str, ...]


class Create(_Call, frozen=True):
    """Create records; the answer is a ``Creation``."""

    session: str
    values: dict[str, bytes]
    guard: Record
    lease: str


class Delete(_Call, frozen=True):
    """Delete records; the answer is whether the guard exists."""

    session: str
    scopes: tuple[str, ...]
    guard: Record


class GrantLease(_Call, frozen=True):
    """Take a second lease; the answer is its name."""

    session: str
    ttl: float


class KeepAlive(_Call, frozen=True):
    """Renew a lease that another session granted; the answer is its ttl in seconds."""

    session: str
    lease: str


class Renew(_Call, frozen=True):
    """Renew a session; the answer is its ttl in seconds."""

    session: str


SessionCall = Join | Create | Delete | GrantLease | KeepAlive | Renew
"""What a session asks for."""

Call = OpenSession | Read | Watch | Unwatch | EndLease | SessionCall
"""What a client asks for."""


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """A call. Its number grows; 0 means that nobody waits for the answer. ``acknowledged``: the
    client waits for no answer up to this number.
    """

    call: Call
    number: int = 0
    acknowledged: int = 0


class Creation(msgspec.Struct, frozen=True, omit_defaults=True):
    """What ``Create`` did. Neither field means that the guard is gone."""

    created: Created | None = None
    exists: Exists | None = None


class Change(msgspec.Struct, frozen=True, omit_defaults=True):
    """How the scope of watch ``number`` has changed since the last message about it, until
    ``revision``: the records that are new, and the keys of those that are gone. ``whole``: the new
    ones are all that there are. ``unfinished``: the rest of this change follows in further ones,
    since one message cannot hold it; it counts when it is complete.
    """

    number: int
    revision: int
    put: tuple[Record, ...] = ()
    gone: tuple[str, ...] = ()
    whole: bool = False
    unfinished: bool = False


class Failure(msgspec.Struct, frozen=True):
    """An error of the ledger; ``kind`` is the name of its class."""

    kind: str
    text: str


class FromServer(msgspec.Struct, frozen=True, omit_defaults=True):
    """The answer to request ``number``, if there is one: its ``result``, or its ``failure``. The
    ``changes`` of watched scopes. A ``goodbye``: why the server ends.
    """

    number: int = 0
    result: msgspec.Raw = msgspec.Raw(b"null")
    failure: Failure | None = None
    changes: tuple[Change, ...] = ()
    goodbye: str = ""


_KINDS = (FromServer, Hello, Request, Joined, View, Creation, str, float, bool, None)
"""What is decoded: messages, and the results of calls."""

_encoder = msgspec.json.Encoder()
# Made now: msgspec would need milliseconds of the first round for it.
_decoders: dict[Any, msgspec.json.Decoder[Any]] = {
    kind: msgspec.json.Decoder(kind) for kind in _KINDS
}


def encode(message: Any) -> bytes:
    """``message`` as JSON."""
    return _encoder.encode(message)


def decode(body: bytes | msgspec.Raw, kind: Any) -> Any:
    """The message or result of that kind in ``body``.

    :raises ValueError: it is something else.
    """
    try:
        return _decoders[kind].decode(body)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def convert(value: Any, kind: Any) -> Any:
    """The message of that kind in decoded JSON. :raises ValueError: it is something else."""
    return msgspec.convert(value, kind)


def result(value: Any) -> msgspec.Raw:
    """A result for ``FromServer``."""
    return msgspec.Raw(encode(value))
