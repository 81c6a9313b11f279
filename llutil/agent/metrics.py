"""Metrics of a job, through torch elastic's metrics API: who takes them, and the ones that are
ours.

torch elastic's own are in the group ``torchelastic``, under torch's names:
``workers.<role>.<what>`` (``run_total``, ``remaining_restarts``, ``flakiness`` and others) and
``<Class>.<method>.duration.ms`` with ``.success`` and ``.failure``. Ours are in the group
``llutil``, each about one node, times in whole milliseconds:

=================================  =================================================================
``launch.<role>.duration.ms``      From the agent's begin until its first workers were started;
                                   once.
``rendezvous.<role>.duration.ms``  From when this node was ready for a round until it knew its
                                   ranks; once a round.
``restart.<role>.count``           Restarts charged to the job so far; with each start of workers.
``restart.<role>.duration.ms``     From when a round was over, here, until the next one's workers
                                   were started; its workers' grace and the rendezvous included.
=================================  =================================================================

torch keeps one handler a group and process, and so a job's ``metrics_cfg`` goes on to apply to the
jobs after it.
"""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable, Mapping
from typing import Any

from torch.distributed.elastic import metrics
from torch.distributed.elastic.metrics.api import put_metric

from llutil.errors import ConfigError

__all__ = ["GROUP", "Stopwatch", "configure"]

GROUP = "llutil"
"""The group that our own metrics are in."""


def configure(groups: Mapping[str, str]) -> None:
    """Give each group its handler: "null", "console", or one of the class that ``module:Class``
    names.

    torch 2.13's own ``initialize_metrics`` does nothing with a configuration, unless torch was
    built with a ``static_init`` of its own; it is called all the same.

    :raises ConfigError: a handler cannot be made.
    """
    for group, name in groups.items():
        metrics.configure(_handler(group, name), group)
    metrics.initialize_metrics(metrics.MetricsConfig(dict(groups)))


def _handler(group: str, name: str) -> Any:
    if name == "null":
        return metrics.NullMetricHandler()
    if name == "console":
        return metrics.ConsoleMetricHandler()
    module, _, attribute = name.partition(":")
    try:
        handler = getattr(importlib.import_module(module), attribute)()
    except Exception as error:
        raise ConfigError(
            f"metrics_cfg[{group!r}] is {name!r}, of which no handler could be made: "
            f"{type(error).__name__}: {error}"
        ) from error
    if not callable(getattr(handler, "emit", None)):
        raise ConfigError(
            f"metrics_cfg[{group!r}] is {name!r}, whose object has no emit(metric); wanted a "
            "class like torch's "
            "MetricHandler"
        )
    return handler


class Stopwatch:
    """Takes the times of one agent, and puts them as metrics of ``role``."""

    def __init__(self, role: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._role = role
        self._clock = clock
        self._began: float | None = None
        self._ready = clock()
        self._over: float | None = None

    def begin(self) -> None:
        """The agent begins to run."""
        self._began = self._ready = self._clock()

    def round_found(self) -> int:
        """The node knows its ranks in a round: after how many milliseconds."""
        taken = self._since(self._ready)
        self._put("rendezvous.{}.duration.ms", taken)
        return taken

    def workers_started(self, restarts: int) -> None:
        """The workers of a round were started, after so many restarts."""
        self._put("restart.{}.count", restarts)
        if self._began is not None:
            self._put("launch.{}.duration.ms", self._since(self._began))
            self._began = None
        if self._over is not None:
            self._put("restart.{}.duration.ms", self._since(self._over))
            self._over = None

    def round_over(self) -> None:
        """The workers here are to be ended: one failed, all have ended, or the round is over
        elsewhere.
        """
        self._over = self._clock()

    def ready(self) -> None:
        """No worker is left, and the node is ready for another round."""
        self._ready = self._clock()

    def _since(self, moment: float) -> int:
        return round(1000 * (self._clock() - moment))

    def _put(self, name: str, value: int) -> None:
        put_metric(name.format(self._role), value, GROUP)
