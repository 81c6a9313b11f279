"""``AgentObserver``: hears from an agent what happens on its node.

The agent tells its observer what happened. The observer can only ask it to hold back output.
``launch_agent`` as a library uses ``TerminalObserver``; the agent process of an Airflow task has an
observer of its own. This module may import only the standard library, ``llutil.agent_socket`` and
``llutil.progress``.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Protocol

from llutil.agent_socket.messages import JobStatus
from llutil.agent_socket.round_end import RoundEnd
from llutil.progress.display import ProgressDisplay, nodes_like

__all__ = ["AgentObserver", "TerminalObserver"]


class AgentObserver(Protocol):
    """Hears what happens on a node. It is called on the agent's thread, and must not block for
    long.
    """

    captures: bool
    """Whether workers' output should come to ``output_lines``. Else workers inherit the agent's own
    streams.
    """

    leaves_out: bool
    """Whether lines are left out while it is ``congested``. Else workers wait."""

    wants_progress: bool
    """Whether ``progress`` should be called about twice a second."""

    wants_status: bool
    """Whether ``status`` should be called."""

    def fds(self) -> set[int]:
        """Descriptors that a forked worker must not keep."""

    def output_lines(self, rank: int, prefix: str, stream: str, lines: Sequence[str]) -> None:
        """A rank printed these lines; ``prefix`` is torch's (``[role0]:``), ``stream`` is stdout or
        stderr.
        """

    def round(self, restart: int, world_size: int, ranks: tuple[int, ...]) -> None:
        """Workers of a round have started; or, if ``ranks`` is empty and ``world_size`` 0, have
        ended.
        """

    def round_ended(self, end: RoundEnd) -> None:
        """How the last round ended here. A second call for the same round knows more."""

    def status(self, status: JobStatus) -> None:
        """What the node does now: every few seconds, if that has changed."""

    def time_spent(
        self, seconds: float, training_share: float | None, restarts: int, text: str
    ) -> None:
        """The job is over here, after ``seconds``; see ``TimeAccount``."""

    def ledger_served(self, endpoint: str) -> None:
        """This node serves the ledger of its job, and other nodes find it at ``endpoint``."""

    def progress(self, ranks: Mapping[int, tuple[int, int]], metrics: Mapping[str, float]) -> None:
        """The step and the total number of steps, by rank, and the metrics of rank 0 if it is here.
        Without ``ranks``: show none for now, since a person uses the terminal for something else.
        """

    def measured(self, what: str, seconds: float) -> None:
        """``what`` took so long: "launch", "rendezvous" or "restart", see ``Stopwatch``."""

    def saved(self, step: int, seconds: float | None = None, path: str = "") -> None:
        """The checkpoint after ``step`` steps is committed, which took ``seconds``, if that is
        known. A job that has succeeded tells of its newest one again, with its folder ``path``.
        """

    def steered(self, text: str, now: str = "") -> None:
        """Something was asked of all ranks, or follows from it; ``text`` says what, in one line.
        ``now`` is what the job does from now on, in words; empty if it goes on as before.
        """

    def stopped(self, step: int, why: str) -> None:
        """The job was stopped after ``step`` because somebody asked for that; it has succeeded."""

    def congested(self) -> bool:
        """Whether so much output waits to be delivered that no more should come."""

    def when_not_congested(self, resume: Callable[[], None]) -> None:
        """Call ``resume`` once ``congested`` is false again."""


class TerminalObserver:
    """The observer that prints teed output to the caller's own streams. Workers inherit these
    streams for all other output.

    :param display: shows the ranks' progress; None shows none.
    """

    captures = wants_status = False
    leaves_out = False

    def __init__(self, display: ProgressDisplay | None = None) -> None:
        self.wants_progress = display is not None
        self._display = display

    def fds(self) -> set[int]:
        """None: workers may keep the terminal."""
        return set()

    def output_lines(self, rank: int, prefix: str, stream: str, lines: Sequence[str]) -> None:
        """Print each line after its prefix, as torch does. Where they cannot be printed they are in
        the log files, and the job goes on.
        """
        del rank  # the prefix names it
        target = sys.stderr if stream == "stderr" else sys.stdout
        if target is None:  # this program was started with the stream closed
            return
        with suppress(OSError, ValueError):  # its reader is gone, its disk is full, it was closed
            for text in lines:
                try:
                    target.write(f"{prefix}{text}\n")
                except UnicodeEncodeError:  # a terminal that knows fewer characters ends no job
                    target.write(f"{prefix}{ascii(text)[1:-1]}\n")
            target.flush()

    def round(self, restart: int, world_size: int, ranks: tuple[int, ...]) -> None:
        """Show the progress of the round, or leave its last state."""
        del restart
        if self._display is None:
            return
        if ranks:
            self._display.begin(nodes_like(world_size, ranks))
        else:
            self._display.close()

    def round_ended(self, end: RoundEnd) -> None:
        """Nothing to show: the agent's log says so."""

    def status(self, status: JobStatus) -> None:
        """Nothing to show: ``llutil status`` does."""

    def time_spent(
        self, seconds: float, training_share: float | None, restarts: int, text: str
    ) -> None:
        """Nothing to show: the agent's log says so."""

    def ledger_served(self, endpoint: str) -> None:
        """Nothing to show: the agent's log says so."""

    def progress(self, ranks: Mapping[int, tuple[int, int]], metrics: Mapping[str, float]) -> None:
        """Show it on the display."""
        if self._display is None:
            return
        if ranks:
            self._display.show(ranks, metrics)
        else:
            self._display.hide()

    def measured(self, what: str, seconds: float) -> None:
        """Nothing to show: torch elastic's metrics have it."""

    def saved(self, step: int, seconds: float | None = None, path: str = "") -> None:
        """Nothing to show: the agent's log says so."""

    def steered(self, text: str, now: str = "") -> None:
        """Nothing to show: the agent's log says so."""

    def stopped(self, step: int, why: str) -> None:
        """Nothing to show: the agent's log says so."""

    def congested(self) -> bool:
        """Never: writing to a slow terminal blocks the agent."""
        return False

    def when_not_congested(self, resume: Callable[[], None]) -> None:
        """Never needed."""
