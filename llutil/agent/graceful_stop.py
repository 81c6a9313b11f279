"""A stop of this node, within its grace period: its ranks end at a step, or else by a signal.

This module may import torch's signal exception through ``stop_signals``, the rooms of the agent
below it, and ``llutil.time_budgets``.
"""

from __future__ import annotations

import logging
import signal
import time

from llutil.agent.steering.steering import Steering
from llutil.agent.stop_signals import StopSignals
from llutil.agent.workers.rank_group import RankGroup
from llutil.time_budgets import StopBudget

__all__ = ["GracefulStop"]

_log = logging.getLogger(__name__)


class GracefulStop:
    """What ``signals`` ask for, with ``grace_period`` seconds for ranks from then on."""

    def __init__(self, signals: StopSignals, steering: Steering, grace_period: float) -> None:
        self._signals, self._steering = signals, steering
        self._grace_period = grace_period
        self._asked: float | None = None

    def check(self, workers: RankGroup | None) -> None:
        """Raise if this node was asked to stop, once ``workers`` have had time to end at a step.

        :raises SignalException: they have ended so, or get the signal now, or there are none.
        """
        caught = self._signals.caught
        if caught is None:
            return
        if self._asked is None:
            self._asked = time.monotonic()
            if workers is not None and not workers.ended:
                again = "; Ctrl-C again ends them at once" if caught is signal.SIGINT else ""
                text = "got %s: the ranks here have %.3g s to save and to end%s"
                _log.info(text, caught.name, self._grace_period, again)
        if workers is not None and not workers.failed and not self._signals.urgent:
            if workers.ended and not self._steering.was_told_to_end:
                return  # they had come to their own end before
            seconds = StopBudget(self._grace_period).in_order
            if not workers.ended and self._steering.ends_in_order(f"got {caught.name}", seconds):
                return
        self._signals.check()

    @property
    def grace_left(self) -> float:
        """Seconds that ranks have yet, if they get a signal now."""
        if self._asked is None:
            return self._grace_period
        return max(0.0, self._asked + self._grace_period - time.monotonic())
