"""Turns what an agent and its ranks print and report into lines of the task's log.

Each line begins with its source: a rank, several ranks or the agent. This module decides wording
and levels, and writes to the log that it is given. It reads no socket and keeps no state of the
job. It may import only the standard library, ``llutil.progress``, ``llutil.std``,
``llutil.system``, ``llutil.task_link.messages`` and its own room.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from itertools import groupby

from airflow_provider.agent_client.folded_lines import MANY, FoldedLines
from airflow_provider.agent_client.log_levels import StreamLevels
from llutil.progress.display import ProgressDisplay, nodes_like
from llutil.std import AUTO_RANKS, FEW_RANKS
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
# Lines of one record, so that a reader need not scroll through a record for long.
_RECORD = 100


class LogRelay:
    """Writes the job's events to ``log``, in the order in which they come.

    ``label`` is put at the start of each line, for logs that several jobs share. With ``folds``,
    the same line of many ranks is one line; ``shown`` is the job's ``local_ranks_filter``.
    ``last_errors`` holds the last lines that the agent itself printed on stderr, to be reported if
    the agent dies.
    """

    def __init__(
        self,
        log: logging.Logger,
        display: ProgressDisplay,
        label: str = "",
        *,
        folds: bool = False,
        shown: Collection[int] | str | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._log = log
        self._label = f"[{label}] " if label else ""
        self._display = display
        self._folds = folds
        self._shown = shown
        self._clock = clock
        self._folded: FoldedLines | None = None
        """The lines that wait for those of other ranks; None if too few ranks are shown."""
        self._logs: dict[int, logging.Logger] = {}
        self._levels: dict[tuple[int | None, str], StreamLevels] = {}
        self.last_errors: deque[str] = deque(maxlen=_LAST_LINES)

    def event(self, event: OutputLines | LogRecord | JobEvent) -> None:
        """Write one event as lines of the log, or show it on the display."""
        match event:
            case OutputLines():
                self._take_output(event)
            case LogRecord(level=level, text=text):
                number = logging.getLevelNamesMapping().get(level, logging.INFO)
                self._write(number, "[agent] ", text)
            case RoundBegan(world_size=world_size, ranks=here):
                # The agent's own log has a line about it.
                self._write_folded(all_of_them=True)
                shown = self._shown_ranks(world_size, len(here))
                self._folded = FoldedLines(shown) if self._folds and shown >= MANY else None
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

    @property
    def due(self) -> float:
        """When ``turn`` has something to do, by the clock."""
        return float("inf") if self._folded is None else self._folded.due

    def turn(self) -> None:
        """Write the lines that have waited long enough for those of other ranks."""
        self._write_folded()

    def close(self) -> None:
        """Leave all that was printed in the log, and the last progress."""
        self._write_folded(all_of_them=True)
        self._display.close()

    def _take_output(self, printed: OutputLines) -> None:
        levels = self._stream_levels(printed.rank, printed.stream)
        lines = printable_lines(printed.text)
        if self._folded is None or printed.prefix:  # a prefix that the user wants is a rank's own
            prefix = printed.prefix or f"[rank {printed.rank}] "
            for level, some in groupby(lines, levels.level):
                self._write_lines(level, prefix, some, self._log_of(printed.rank))
            return
        now = self._clock()
        for line in lines:
            self._folded.add(printed.rank, levels.level(line), line, now)
        self._write_folded()

    def _write_folded(self, *, all_of_them: bool = False) -> None:
        if self._folded is None:
            return
        now = float("inf") if all_of_them else self._clock()
        for level, lines in groupby(self._folded.take(now), lambda one: one[0]):
            for some in _in_records([line for _, line in lines]):
                self._log.log(level, "\n".join(f"{self._label}{line}" for line in some))

    def _shown_ranks(self, world_size: int, here: int) -> int:
        """How many of the ranks here are in the log, at most."""
        if self._shown == AUTO_RANKS and world_size > FEW_RANKS:
            return 1
        return here if isinstance(self._shown, str) else len(self._shown or ()) or here

    def _stream_levels(self, rank: int | None, stream: str) -> StreamLevels:
        """The levels of the lines of that rank, or of the agent, on that stream."""
        return self._levels.setdefault((rank, stream), StreamLevels(stream))

    def _write(self, level: int, prefix: str, text: str) -> None:
        """Write ``text``, each of its lines behind the prefix: a rank may have a word in it."""
        self._write_folded(all_of_them=True)
        self._write_lines(level, prefix, printable_lines(text))

    def _write_lines(
        self, level: int, prefix: str, lines: Iterable[str], log: logging.Logger | None = None
    ) -> None:
        """Write one record: Airflow takes as long for each as for many lines in one."""
        start = f"{self._label}{prefix}"
        (log or self._log).log(level, start + f"\n{start}".join(lines))

    def _log_of(self, rank: int) -> logging.Logger:
        """The logger of one rank's lines. The log of an operator is structlog's (Airflow 3.3), and
        the UI can show what has one name alone, which is *source* there.
        """
        if (log := self._logs.get(rank)) is None:
            bind: Callable[..., logging.Logger] | None = getattr(self._log, "bind", None)
            log = self._log if bind is None else bind(logger=f"rank {rank}")
            self._logs[rank] = log
        return log


def _in_records(lines: Sequence[str]) -> Iterator[Sequence[str]]:
    return (lines[start : start + _RECORD] for start in range(0, len(lines), _RECORD))
