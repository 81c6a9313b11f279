"""The event page of an Airflow task's job: its task raises flags there, through the agent's socket.

A person on this host can do the same by the page's path, which is in the task's log. This module
may import only the standard library and ``llutil.events``.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

from llutil.events.events import Events

__all__ = ["FLAGS", "JobPage"]

_log = logging.getLogger(__name__)

FLAGS = ("pause", "resume", "show_stacks", "stop_all_tasks", "trigger_save_checkpoint")
"""The flags that a task may raise. The others are the agent's answers."""


class JobPage:
    """The page of the job that this process runs; there is none before the job."""

    def __init__(self) -> None:
        self._events: Events | None = None

    def opened(self, events: Events) -> None:
        """The job has this page from now on. Whoever made it closes it."""
        _log.info("this node's event page, for Events.attach() on this host: %s", events.path)
        self._events = events

    def steer(self, flags: Sequence[str], why: str) -> None:
        """Raise ``flags``, on whatever thread. What is not a flag is logged. Without an open
        page there is no job that could be steered.
        """
        events = self._events
        for name in flags:
            if name not in FLAGS:
                _log.warning(
                    "the task wants to raise %r (%s), which this agent does not know; it knows %s",
                    name,
                    why,
                    ", ".join(FLAGS),
                )
            elif events is None:
                _log.info("no job runs here that %s could reach (%s)", name, why)
            else:
                _raise(events, name, why)


def _raise(events: Events, name: str, why: str) -> None:
    try:
        getattr(events, name).set()
    except ValueError:  # the job has just ended, and its page is closed
        _log.info("the job has ended before %s could reach it (%s)", name, why)
    else:
        _log.info("the task raises %s: %s", name, why)
