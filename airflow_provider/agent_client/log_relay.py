"""Turns what an agent and its ranks print and report into lines of the task's log.

Each line begins with its source: a rank or the agent. This module decides wording and levels, and
writes to the log that it is given. It reads no socket and keeps no state of the job. It may import
only the standard library, ``llutil.progress``, ``llutil.system``, ``llutil.task_link.messages`` and
its own room.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterable
from itertools import groupby

from airflow_provider.agent_client.log_levels import StreamLevels
from llutil.progress.display import ProgressDisplay, nodes_like
from llutil.system.printable import printable_lines
from llutil.task_link.job_events import JobEvent
from llutil.task_link.messages import (
    LogRecord,
    OutputLines,
    Progress,
    RoundBegan,
    Stopped,
)

__all__ = ["LogRelay"]

_LAST_LINES = 20


class LogRelay:
    """Writes the job's events to ``log``, in the order in which they come.

    ``label`` is put at the start of each line, for logs that several jobs share. ``last_errors``
    holds the last lines that the agent itself printed on stderr, to be reported if the agent dies.
    """

    def __init__(self, log: logging.Logger, display: ProgressDisplay, label: str = "") -> None:
        self._log = log
        self._label = f"[{label}] " if label else ""
        self._display = display
        self._levels: dict[tuple[int | None, str], StreamLevels] = {}
        self.last_errors: deque[str] = deque(maxlen=_LAST_LINES)

    def event(self, event: OutputLines | LogRecord | JobEvent) -> None:
        """Write one event as a line of the log, or show it on the display."""
        match event:
            case OutputLines(rank=rank, stream=stream, text=text, prefix=prefix):
                levels = self._stream_levels(rank, stream)
                for level, lines in groupby(printable_lines(text), levels.level):
                    self._write_lines(level, prefix or f"[rank {rank}] ", lines)
            case LogRecord(level=level, text=text):
                number = logging.getLevelNamesMapping().get(level, logging.INFO)
                self._write(number, "[agent] ", text)
            case RoundBegan(world_size=world_size, ranks=here):
                # The agent's own log has a line about it.
                if here:
                    self._display.begin(nodes_like(world_size, here))
                # A process that was killed in the middle of a traceback does not go on with it.
                self._levels = {key: kept for key, kept in self._levels.items() if key[0] is None}
            case Progress(ranks=ranks, metrics=metrics) if ranks:
                self._display.show(ranks, metrics)
            case Progress():
                self._display.hide()
            case Stopped(step=step, why=why):
                at = "" if step is None else f" after step {step}"
                self._write(
                    logging.WARNING,
                    "",
                    f"the job was stopped{at}: {why}; it ends as a success, with what its ranks "
                    "return",
                )
            case _:  # the agent's own log has a line about it
                pass

    def printed(self, stream: str, text: str) -> None:
        """Write a line that the agent's process printed; ``stream`` is ``stdout`` or ``stderr``."""
        if stream == "stderr":
            self.last_errors.append(text)
        self._write(self._stream_levels(None, stream).level(text), "[agent] ", text)

    def say(self, level: int, text: str) -> None:
        """Write a line of the task's own about its agent."""
        self._write(level, "", text)

    def close(self) -> None:
        """Leave the last progress in the log."""
        self._display.close()

    def _stream_levels(self, rank: int | None, stream: str) -> StreamLevels:
        """The levels of the lines of that rank, or of the agent, on that stream."""
        return self._levels.setdefault((rank, stream), StreamLevels(stream))

    def _write(self, level: int, prefix: str, text: str) -> None:
        """Write ``text``, each of its lines behind the prefix: a rank may have a word in it."""
        self._write_lines(level, prefix, printable_lines(text))

    def _write_lines(self, level: int, prefix: str, lines: Iterable[str]) -> None:
        """Write one record: Airflow takes as long for each as for many lines in one."""
        start = f"{self._label}{prefix}"
        self._log.log(level, start + f"\n{start}".join(lines))
