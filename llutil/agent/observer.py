"""What surrounds an agent: a terminal, or an Airflow task at the other end of a socket.

The agent tells its host what happened and asks it for nothing but patience. ``TerminalObserver`` is
the host of ``launch_agent`` as a library; the operator's agent process brings its own. This module
may import nothing but the standard library.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import Protocol

__all__ = ["AgentObserver", "TerminalObserver"]


class AgentObserver(Protocol):
    """Hears what happens on a node. Called on the agent's one thread; must not block for long."""

    captures: bool
    """Whether workers' output should come here as lines; else it goes straight to the agent's own
    streams.
    """

    wants_progress: bool
    """Whether ``progress`` should be called about twice a second."""

    def fds(self) -> set[int]:
        """Descriptors that a forked worker must not keep."""

    def output_line(self, rank: int, prefix: str, stream: str, text: str) -> None:
        """A rank printed a line; ``prefix`` is torch's (``[role0]:``), ``stream`` is stdout or
        stderr.
        """

    def round(self, restart: int, world_size: int, ranks: tuple[int, ...]) -> None:
        """Workers of a round have started; without ``ranks``, in a world of 0: they have ended."""

    def store_hosted(self, endpoint: str) -> None:
        """This node hosts the store of its job, and other nodes find it at ``endpoint``."""

    def progress(self, ranks: Mapping[int, tuple[int, int]]) -> None:
        """Steps and totals by rank."""

    def congested(self) -> bool:
        """Whether so much is waiting to be delivered that workers should wait with more output."""

    def when_not_congested(self, resume: Callable[[], None]) -> None:
        """Call ``resume`` once ``congested`` is over."""


class TerminalObserver:
    """The caller's own standard streams; used for what is teed, since the rest is inherited."""

    captures = False
    wants_progress = False

    def fds(self) -> set[int]:
        """None: the terminal is for workers too."""
        return set()

    def output_line(self, rank: int, prefix: str, stream: str, text: str) -> None:
        """Print with the prefix, as torch does."""
        del rank  # the prefix says who it was
        target = sys.stderr if stream == "stderr" else sys.stdout
        try:
            target.write(f"{prefix}{text}\n")
        except UnicodeEncodeError:  # a terminal that knows fewer characters must not end the job
            target.write(f"{prefix}{ascii(text)[1:-1]}\n")
        target.flush()

    def round(self, restart: int, world_size: int, ranks: tuple[int, ...]) -> None:
        """Nothing to show."""

    def store_hosted(self, endpoint: str) -> None:
        """Nothing to show: the agent's log says so."""

    def progress(self, ranks: Mapping[int, tuple[int, int]]) -> None:
        """Nothing to show: the caller owns the page and can read it."""

    def congested(self) -> bool:
        """Never: writing to a slow terminal blocks by itself."""
        return False

    def when_not_congested(self, resume: Callable[[], None]) -> None:
        """Never needed."""
