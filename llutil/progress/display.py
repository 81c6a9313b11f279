"""Chooses how a process shows progress.

This module may import only the standard library, ``llutil.system`` and its own room.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Protocol

from llutil.progress.log_lines import ProgressLines
from llutil.progress.terminal_line import TerminalLine, has_room
from llutil.progress.words import Steps
from llutil.system.terminal import is_ours

__all__ = [
    "SWITCH",
    "ProgressDisplay",
    "display_for_this_process",
    "nodes_like",
    "on_stderr",
]

SWITCH = "LLUTIL_PROGRESS"
"""The environment variable that switches ``launch_agent``'s display off, with the value "off"."""


class ProgressDisplay(Protocol):
    """Shows the progress of one node's ranks."""

    def begin(self, nodes: int) -> None:
        """A round has begun. ``nodes`` is how many nodes show as much as this one does."""

    def show(self, ranks: Steps, metrics: Mapping[str, float]) -> None:
        """Show the present steps, and the metrics of rank 0."""

    def hide(self) -> None:
        """Show nothing until the next ``show``: a person uses the terminal for something else."""

    def close(self) -> None:
        """Leave the last state: the round has ended."""


def nodes_like(world_size: int, ranks: tuple[int, ...]) -> int:
    """How many nodes show as much as the one that has ``ranks``: with many nodes, only rank 0's
    shows all that a single one would.
    """
    return 1 if 0 in ranks or not ranks else max(1, world_size // len(ranks))


def display_for_this_process(write: Callable[[str], None]) -> ProgressDisplay:
    """A line on the terminal where a person looks at one, else lines that ``write`` takes.

    The stderr of an Airflow task that an executor runs is captured, so it is never taken for a
    terminal.
    """
    try:
        fd = sys.stderr.fileno() if sys.stderr.isatty() else -1
    except (AttributeError, OSError, ValueError):  # there is none, or it is closed or no file
        fd = -1
    if fd >= 0 and has_room(fd) and is_ours(fd):
        return TerminalLine(fd, write)
    return ProgressLines(write)


def on_stderr() -> ProgressDisplay | None:
    """The display of a job that was launched from this program; None if it is switched off."""
    return None if os.environ.get(SWITCH) == "off" else display_for_this_process(_to_stderr)


def _to_stderr(line: str) -> None:
    """Write ``line``, if somebody can read it: a job does not end by that."""
    if sys.stderr is None:  # this program was started with the stream closed
        return
    with suppress(OSError, ValueError):  # its reader is gone, its disk is full, it was closed
        sys.stderr.write(f"{line}\n")
        sys.stderr.flush()
