"""Tells the observer the ranks' steps and metrics, about twice a second.

This module may import torch's value of a worker, for annotations alone, the agent's observer and
``llutil.events``.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from llutil.agent.observer import AgentObserver
from llutil.events.events import Events

if TYPE_CHECKING:
    from torch.distributed.elastic.agent.server.api import Worker

__all__ = ["ProgressReport"]

# Seconds between two reports.
_PERIOD = 0.5


class ProgressReport:
    """What the page says of the ranks, for an observer that wants it.

    ``next_due`` is when to tell it next, on ``time.monotonic()``; infinity if never.
    """

    def __init__(self, events: Events, observer: AgentObserver) -> None:
        self._events, self._observer = events, observer
        self.next_due = 0.0 if observer.wants_progress else float("inf")

    def tell_when_due(self, workers: Sequence[Worker]) -> None:
        """Tell of ``workers``, which are those of the round here, if that is due."""
        now = time.monotonic()
        if now >= self.next_due:
            self.next_due = now + _PERIOD
            self.tell(workers)

    def tell(self, workers: Sequence[Worker]) -> None:
        """Tell of them now, if the observer wants it."""
        if not self._observer.wants_progress:
            return
        events = self._events
        ranks = {worker.local_rank: worker.global_rank for worker in workers}
        steps = {
            ranks[local]: progress
            for local, progress in events.progress().items()
            if local in ranks
        }
        first = [events.slot(local) for local, rank in ranks.items() if rank == 0]
        if events.debugged:
            self._observer.progress({}, {})
        elif steps:
            metrics = events.metrics_of(first[0]).read() if first else {}
            self._observer.progress(steps, metrics)
