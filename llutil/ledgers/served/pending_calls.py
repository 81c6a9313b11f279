"""Calls that wait for their answers: ``PendingCall``, and all of a connection's, ``PendingCalls``.

Each call has a number, under which it is sent again on the next connection. This module does no
I/O, and knows no thread but those that it is called in. It may import the standard library and
``llutil.ledgers``.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from llutil.errors import ConfigError
from llutil.ledgers import errors
from llutil.ledgers.errors import LedgerError, LedgerRefused
from llutil.ledgers.served import messages
from llutil.ledgers.served.messages import Call, Failure, FromServer, Request

__all__ = ["Answer", "PendingCall", "PendingCalls"]


@dataclass(frozen=True, slots=True)
class Answer:
    """The result of a call. It was sent for the first time at ``sent`` (``time.monotonic()``)."""

    result: Any
    sent: float


@dataclass(eq=False, kw_only=True)
class PendingCall:
    """A call that waits for its answer. ``what`` it is shown in errors."""

    number: int
    what: str
    body: bytes
    sent: float = 0.0
    """When it was first sent; 0 if it never was."""
    _answer: FromServer | None = None
    _error: LedgerError | None = None
    _done: threading.Event = field(default_factory=threading.Event)

    def note_sent(self) -> bytes:
        """Its request, which is sent now."""
        self.sent = self.sent or time.monotonic()
        return self.body

    def finish(self, answer: FromServer) -> None:
        """The server has answered."""
        self._answer = answer
        self._done.set()

    def fail(self, error: LedgerError) -> None:
        """No answer will come."""
        if not self._done.is_set():
            self._error = error
            self._done.set()

    def wait(self, deadline: float) -> bool:
        """Wait until it is over; False if it is not by ``deadline``."""
        return self._done.wait(max(0.0, deadline - time.monotonic()))

    def answer(self, kind: Any) -> Answer:
        """The answer, which has come, of that ``kind``.

        :raises LedgerError, ConfigError: there is none, or the server answers that.
        """
        if self._error is not None:
            raise type(self._error)(f"{self.what}: {self._error}")
        assert self._answer is not None
        if (failure := self._answer.failure) is not None:
            raise _error(failure)
        return Answer(messages.decode(self._answer.result, kind), self.sent)


class PendingCalls:
    """Those of one connection. Its methods are called with the connection's lock held."""

    def __init__(self) -> None:
        self._last = 0
        self._calls: dict[int, PendingCall] = {}

    def __iter__(self) -> Iterator[PendingCall]:
        return iter(self._calls.values())

    def request(self, call: Call) -> tuple[int, bytes]:
        """A new request, and its number."""
        self._last += 1
        acknowledged = min(self._calls, default=self._last) - 1
        body = messages.encode(Request(number=self._last, call=call, acknowledged=acknowledged))
        return self._last, body

    @staticmethod
    def note(call: Call) -> bytes:
        """A request whose answer nobody waits for."""
        return messages.encode(Request(call=call))

    def add(self, call: PendingCall) -> None:
        """``call`` waits for its answer."""
        self._calls[call.number] = call

    def get(self, number: int) -> PendingCall | None:
        """The call that waits under that number."""
        return self._calls.get(number)

    def remove(self, call: PendingCall) -> None:
        """Nobody waits for it any more."""
        self._calls.pop(call.number, None)

    def fail(
        self, error: Callable[[str], LedgerError], why: str, *, sent_only: bool = False
    ) -> None:
        """No answers will come, to any; or only not to those that were sent."""
        for call in self._calls.values():
            if call.sent or not sent_only:
                call.fail(error(why))


def _error(failure: Failure) -> Exception:
    if failure.kind == ConfigError.__name__:
        return ConfigError(failure.text)
    kind: type[LedgerError] = getattr(errors, failure.kind, LedgerRefused)
    return kind(failure.text)
