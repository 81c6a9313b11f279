"""What the process of an agent prints by itself, on its way from its pipes to the task's log.

This module may import only the standard library, ``log_relay`` and ``llutil.system``.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Iterable
from itertools import repeat

from airflow_provider.agent_client.log_relay import LogRelay
from llutil.system.line_splitter import LineSplitter

__all__ = ["PrintedLines"]


class PrintedLines:
    """The lines of the pipes of these names. An exception while a line is written, such as an
    alarm's, costs that line alone: the next call writes the others.
    """

    def __init__(self, names: Iterable[str], relay: LogRelay) -> None:
        self._relay = relay
        self._splitters = {name: LineSplitter() for name in names}
        self._waiting: deque[tuple[str, str]] = deque()

    def read(self, pipe: int, name: str, size: int) -> bool:
        """Write the lines that the next ``size`` bytes complete. False at the end of the pipe."""
        data = os.read(pipe, size)
        splitter = self._splitters[name]
        lines = splitter.feed(data, time.monotonic()) if data else splitter.finish()
        self._waiting.extend(zip(repeat(name), lines, strict=False))
        self.write()
        return bool(data)

    def finish(self) -> None:
        """Write the last lines, which have no newline."""
        for name, splitter in self._splitters.items():
            self._waiting.extend(zip(repeat(name), splitter.finish(), strict=False))
        self.write()

    def write(self) -> None:
        """Write what an exception has kept from being written."""
        while self._waiting:
            self._relay.printed(*self._waiting.popleft())
