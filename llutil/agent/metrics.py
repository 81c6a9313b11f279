"""Metrics of a job, through torch elastic's metrics API: their handlers, and the metrics of our
own.

torch elastic's own are in the group ``torchelastic``, under torch's names:
``workers.<role>.<what>`` (``run_total``, ``remaining_restarts``, ``flakiness`` and others) and
``<Class>.<method>.duration.ms`` with ``.success`` and ``.failure``. Ours are in the group
``llutil``, each about one node, times in whole milliseconds:

=================================  =================================================================
``launch.<role>.duration.ms``      From the agent's start until its first workers were started;
                                   once.
``rendezvous.<role>.duration.ms``  From when this node was ready for a round until it knew its
                                   ranks; once a round.
``restart.<role>.count``           Restarts charged to the job so far; each time workers start.
``restart.<role>.duration.ms``     From the end of a round on this node until the workers of the
                                   next one were started, with grace period and rendezvous.
``training.<role>.percent``        The share of the job's time in steps that counted; once, at the
                                   end, if ranks reported steps.
=================================  =================================================================

torch keeps one handler for each group in a process. So a job's ``metrics_cfg`` also applies to
later jobs of the same process.
"""

from __future__ import annotations

import importlib
import logging
import time
from collections.abc import Callable, Mapping
from typing import Any

from torch.distributed.elastic import metrics
from torch.distributed.elastic.metrics.api import put_metric

from llutil.agent.time_account import TimeAccount
from llutil.errors import ConfigError

__all__ = ["GROUP", "Stopwatch", "configure"]

_log = logging.getLogger(__name__)

GROUP = "llutil"
"""The group of our own metrics."""


def configure(groups: Mapping[str, str]) -> None:
    """Give each group its handler: "null", "console", or an object of the class ``module:Class``.

    torch 2.13's own ``initialize_metrics`` ignores its configuration, unless torch was built with
    another ``static_init``; it is called all the same.

    A handler that fails later costs metrics, and not the job.

    :raises ConfigError: a handler cannot be made.
    """
    for group, name in groups.items():
        metrics.configure(_Guarded(group, _handler(group, name)), group)
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
            f"metrics_cfg[{group!r}] is {name!r}, and making a handler of it failed: "
            f"{type(error).__name__}: {error}"
        ) from error
    if not callable(getattr(handler, "emit", None)):
        raise ConfigError(
            f"metrics_cfg[{group!r}] is {name!r}, whose object has no emit(metric); wanted a "
            "class like torch's MetricHandler"
        )
    return handler


class _Guarded:
    """Hands the metrics of ``group`` to ``handler``. torch puts some when the ranks have returned,
    and an error there would lose their values.
    """

    def __init__(self, group: str, handler: Any) -> None:
        self._group = group
        self._handler = handler
        self._warned = False

    def emit(self, metric_data: Any) -> None:
        """Hand one on. The first error is logged, and no other: the next would be the same."""
        try:
            self._handler.emit(metric_data)
        except Exception as error:  # noqa: BLE001 - the user's code may raise anything
            if not self._warned:
                self._warned = True
                _log.warning(
                    "metrics of the group %r are lost, since emit of %s failed: %s: %s; no further "
                    "error of it is told",
                    self._group,
                    type(self._handler).__name__,
                    type(error).__name__,
                    error,
                )


class Stopwatch:
    """Measures the times of one agent, and puts them as metrics of ``role``.

    ``account`` is where the time went. ``tell`` gets times in seconds too, by name: "launch",
    "rendezvous" and "restart".
    """

    def __init__(
        self,
        role: str,
        clock: Callable[[], float] = time.monotonic,
        tell: Callable[[str, float], None] = lambda _what, _seconds: None,
    ) -> None:
        self._role = role
        self._tell = tell
        self._clock = clock
        self._began_at: float | None = None
        self._ready_at = clock()
        self._round_over_at: float | None = None
        self.account = TimeAccount(clock)

    def begin(self) -> None:
        """The agent starts to run."""
        self._began_at = self._ready_at = self._clock()

    def round_found(self) -> int:
        """The node knows its ranks in a round. Returns how many milliseconds that took."""
        return self._put_time("rendezvous", self._ready_at)

    def workers_started(self, restarts: int) -> None:
        """The workers of a round were started, after ``restarts`` restarts of the job."""
        self.account.begin_round()
        self._put("restart.{}.count", restarts)
        if self._began_at is not None:
            self._put_time("launch", self._began_at)
            self._began_at = None
        if self._round_over_at is not None:
            self._put_time("restart", self._round_over_at)
            self._round_over_at = None

    def round_over(self) -> None:
        """The workers here are about to be ended: one failed, all have ended, or the round ended
        elsewhere.
        """
        self.account.end_round()
        self._round_over_at = self._clock()

    def ready(self) -> None:
        """No worker is left, and the node is ready for another round."""
        self._ready_at = self._clock()

    def end(self) -> str:
        """The job is over here. Where its time went, in words."""
        self.account.end()
        if (share := self.account.training_share) is not None:
            self._put("training.{}.percent", round(100 * share))
        return self.account.told

    def _put_time(self, what: str, began_at: float) -> int:
        seconds = self._clock() - began_at
        self._put(f"{what}.{{}}.duration.ms", milliseconds := round(1000 * seconds))
        self._tell(what, seconds)
        return milliseconds

    def _put(self, name: str, value: int) -> None:
        put_metric(name.format(self._role), value, GROUP)
