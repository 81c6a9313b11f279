"""Reads messages from the bytes that come through the socket between a task and its agent.

This module does no I/O. It may import only the standard library, ``llutil.errors`` and its own
room.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Iterator

from llutil.errors import ConfigError
from llutil.task_link.messages import Message, from_json

__all__ = ["Decoder"]


class Decoder:
    """Turns received bytes into messages, and keeps what was not taken yet: whole messages, and the
    part of a line whose rest has not come.

    A signal handler may raise between any two instructions here. ``receive``, ``first`` and
    ``drop`` lose nothing by that, and give nothing twice.
    """

    def __init__(self) -> None:
        self._received: tuple[deque[bytes], list[bytes]] = deque(), []
        """Lines, without their newlines; and what came after them, in pieces. It is one value, so
        that what becomes a line is no piece any more in the same moment.
        """
        self._searched = 0
        """In so many pieces there is no newline."""

    def feed(self, data: bytes) -> Iterator[Message]:
        """The messages that have come in full with ``data``, in order. What is not taken from the
        iterator is there the next time.

        :raises ConfigError: a line is not a message; the iteration has passed it.
        """
        self.receive(lambda _: data, len(data))
        return self._taken()

    def receive(self, read: Callable[[int], bytes], size: int) -> bool:
        """Take what ``read(size)`` returns, such as a socket's ``recv``. False at the end, which is
        an empty answer. What ``read`` raises goes through.
        """
        pieces = self._received[1]
        # Not a plain call: a signal's handler may run when it has returned, before its value has a
        # name, and the bytes would be lost.
        pieces.extend(map(read, (size,)))
        return bool(pieces[-1])

    def first(self) -> Message | None:
        """The first message that was not dropped; None if none has come in full.

        :raises ConfigError: the first line is not a message. It is dropped.
        """
        lines = self._lines()
        if not lines:
            return None
        try:
            return _message(lines[0])
        except ConfigError:
            lines.popleft()
            raise

    def drop(self) -> None:
        """Drop the first message."""
        self._received[0].popleft()

    def _lines(self) -> deque[bytes]:
        lines, pieces = self._received
        if self._searched < len(pieces):
            if any(b"\n" in piece for piece in pieces[self._searched :]):
                self._searched = 0
                *more, rest = b"".join(pieces).split(b"\n")
                self._received = deque([*lines, *more]), [rest]
            self._searched = len(self._received[1])
        return self._received[0]

    def _taken(self) -> Iterator[Message]:
        while lines := self._lines():
            yield _message(lines.popleft())


def _message(line: bytes) -> Message:
    try:
        body = json.loads(line)
    except (ValueError, RecursionError) as error:
        # Not more of it: a spec may hold a password.
        raise ConfigError(f"not a message on the agent's socket: {line[:40]!r}") from error
    return from_json(body)
