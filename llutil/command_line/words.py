"""What commands say of a job, in words.

This module may import ``llutil.agent_socket.messages`` and ``llutil.progress``.
"""

from __future__ import annotations

from llutil.agent_socket.messages import JobStatus, State
from llutil.command_line.screen import Cell
from llutil.progress.words import duration

__all__ = ["rate", "state", "steps", "style_of", "whole_state"]

_STYLES = {
    State.WAITS: "yellow",
    State.RUNS: "green",
    State.PAUSES: "yellow",
    State.PAUSED: "yellow",
    State.SAVES: "cyan",
    State.STOPS: "magenta",
    State.ENDS: "red",
    State.DEBUGGED: "yellow",
}


def style_of(status: JobStatus) -> str:
    """The colour of its state."""
    return _STYLES[status.state]


def state(status: JobStatus) -> Cell:
    """Its state, in one word."""
    return Cell(status.state, style_of(status))


def steps(status: JobStatus) -> str:
    """How far the slowest rank is."""
    if status.step is None:
        return "-"
    return f"{status.step}/{status.total}" if status.total else str(status.step)


def rate(status: JobStatus) -> str:
    """How fast that rank is."""
    if status.rate is None:
        return "-"
    return f"{status.rate:.3g}/s" if status.rate >= 1 else f"{1 / status.rate:.3g} s a step"


def whole_state(status: JobStatus) -> Cell:
    """Its state with all that belongs to it."""
    parts = [str(status.state)]
    if status.step is not None:
        parts.append(f"step {status.step}" + (f" of {status.total}" if status.total else ""))
    if status.rate is not None:
        parts.append(f"{rate(status)}".replace("/s", " steps/s"))
    if status.seconds_left is not None:
        parts.append(f"{duration(status.seconds_left)} left")
    if status.detail:
        parts.append(status.detail)
    return Cell(", ".join(parts), style_of(status))
