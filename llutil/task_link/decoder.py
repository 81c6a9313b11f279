"""Reads messages from the bytes that come through the socket between a task and its agent.

This module does no I/O. It may import only the standard library, ``llutil.errors`` and its own
room.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

from llutil.errors import ConfigError
from llutil.task_link.messages import Message, from_json

__all__ = ["Decoder"]


class Decoder:
    """Turns received bytes into messages; keeps the part of a line whose rest has not come yet."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []

    def feed(self, data: bytes) -> Iterator[Message]:
        """The messages that ``data`` completes, in order.

        :raises ConfigError: a line is not a message.
        """
        if b"\n" not in data:
            self._pieces.append(data)
            return
        *lines, rest = b"".join((*self._pieces, data)).split(b"\n")
        self._pieces = [rest] if rest else []
        for line in lines:
            try:
                body = json.loads(line)
            except (ValueError, RecursionError) as error:
                # Not more of it: a spec may hold a password.
                raise ConfigError(f"not a message on the agent's socket: {line[:40]!r}") from error
            yield from_json(body)
