"""``JobListener``: hears what an agent says of its job, and may ask something of the job.

This module may import only the standard library and ``llutil.task_link.job_events``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from llutil.task_link.job_events import JobEvent

__all__ = ["NOBODY", "JobListener", "JobListeners", "Steer"]

Steer = Callable[[Sequence[str], str], None]
"""Has flags raised on the page of the job's agent; the text says why. Any thread may call it."""


class JobListener:
    """Hears of one job after the other, on the thread that relays; so nothing here may block.

    It does nothing. A subclass says what it does.
    """

    def begin(self, steer: Steer) -> None:
        """An agent begins a job. ``steer`` reaches it until ``end``."""

    def hear(self, event: JobEvent) -> None:
        """Something happened."""

    def stop_asked(self, reason: str) -> None:
        """The agent is asked to end the job, within its grace period."""

    def end(self) -> None:
        """The agent has ended."""


class JobListeners(JobListener):
    """Passes all on to several listeners."""

    def __init__(self, *listeners: JobListener) -> None:
        self._listeners = listeners

    def begin(self, steer: Steer) -> None:
        """Pass it on."""
        for one in self._listeners:
            one.begin(steer)

    def hear(self, event: JobEvent) -> None:
        """Pass it on."""
        for one in self._listeners:
            one.hear(event)

    def stop_asked(self, reason: str) -> None:
        """Pass it on."""
        for one in self._listeners:
            one.stop_asked(reason)

    def end(self) -> None:
        """Pass it on."""
        for one in self._listeners:
            one.end()


NOBODY = JobListener()
"""Does nothing."""
