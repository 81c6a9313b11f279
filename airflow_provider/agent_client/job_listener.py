"""``JobListener``: hears what an agent says of its job, and may ask something of the job.

This module may import only the standard library and ``llutil.task_link.job_events``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from llutil.task_link.job_events import JobEvent

__all__ = ["NOBODY", "JobListener", "Steer"]

Steer = Callable[[Sequence[str], str], None]
"""Has flags raised on the page of the job's agent; the text says why. Any thread may call it."""


class JobListener(Protocol):
    """Hears of one job after the other, on the thread that relays; so nothing here may block."""

    def begin(self, steer: Steer) -> None:
        """An agent begins a job. ``steer`` reaches it until ``end``."""

    def hear(self, event: JobEvent) -> None:
        """Something happened."""

    def stop_asked(self, reason: str) -> None:
        """The agent is asked to end the job, within its grace period."""

    def end(self) -> None:
        """The agent has ended."""


class _NoListener:
    """A listener that does nothing."""

    def begin(self, steer: Steer) -> None:
        """Do nothing."""

    def hear(self, event: JobEvent) -> None:
        """Do nothing."""

    def stop_asked(self, reason: str) -> None:
        """Do nothing."""

    def end(self) -> None:
        """Do nothing."""


NOBODY: JobListener = _NoListener()
"""Does nothing."""
