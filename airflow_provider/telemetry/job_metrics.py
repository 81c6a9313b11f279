"""``JobMetrics``: a job's launches, times, restarts and failures as metrics of Airflow.

All names begin with ``elastic_launch.``, and all have the tags that Airflow's own metrics of a task
have: ``dag_id``, ``task_id`` and, with teams, ``team_name``. Times are in milliseconds, as
Airflow's are.

============================  ==========================================================
``launches``                  counter; a launch has begun on this node
``launch.duration``           timing; from the agent's start until its first workers were started
``rendezvous.duration``       timing; from when the node was ready for a round until it knew its
                              ranks; once a round
``restart.duration``          timing; from the end of a round here until the next one's workers
                              were started
``restarts``                  counter, tag ``class``: a round ended, and another one began. The
                              class is that of the failure, as in ``llutil.failure``, with ``_`` for
                              blanks, or ``lost_node`` or ``membership``
``checkpoint.duration``       timing; a checkpoint was saved and committed
``failures``                  counter, tag ``class``: the job failed
``training_share``            gauge, 0 to 1; the share of the time in steps that counted, at the
                              end of the job
============================  ==========================================================

What is true of the whole job (``restarts``, ``checkpoint.duration``, ``training_share``) is told by
the node that has rank 0; a restart after a failure by the node whose rank failed.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from airflow.sdk.observability import stats
from opentelemetry import metrics

from airflow_provider.agent_client.job_listener import JobListener, Steer
from llutil.agent_socket.round_end import RoundEnd, RoundEndKind
from llutil.errors import LaunchError
from llutil.failure import FailureClass
from llutil.task_link.job_events import (
    JobEvent,
    Measured,
    RoundBegan,
    RoundEnded,
    Saved,
    TimeSpent,
)

__all__ = ["JobMetrics"]

_PREFIX = "elastic_launch."
_FLUSH_WITHIN = 2000.0
"""Milliseconds for a collector to take the metrics at the end of a try."""


class JobMetrics(JobListener):
    """The metrics of one try of the task instance ``ti``."""

    def __init__(self, ti: Any, log: logging.Logger) -> None:
        own = {"dag_id": ti.dag_id, "task_id": ti.task_id}
        self._tags: dict[str, str] = getattr(ti, "stats_tags", own)
        self._log = log
        self._has_rank_0 = False
        self._ended: RoundEnd | None = None
        self._counted = self._is_broken = False

    def begin(self, steer: Steer) -> None:
        """See ``JobListener``."""
        del steer
        self._ended = None
        self._count("launches")

    def hear(self, event: JobEvent) -> None:
        """See ``JobListener``."""
        match event:
            case RoundBegan(ranks=ranks) if ranks:
                self._has_rank_0 = 0 in ranks
                if self._ended is not None:
                    self._count_restart(self._ended)
                self._ended = None
            case RoundEnded(end=end):
                if self._ended is None or end.failure is not None:
                    self._ended = end
            case Measured(what=what, seconds=seconds):
                self._time(f"{what}.duration", seconds)
            case Saved(seconds=seconds) if seconds is not None and self._has_rank_0:
                self._time("checkpoint.duration", seconds)
            case TimeSpent(training_share=share) if share is not None and self._has_rank_0:
                self._send(stats.gauge, "training_share", share)
            case _:
                pass

    @contextmanager
    def outcome_told(self) -> Iterator[None]:
        """Around a try: count it if it fails, and have all that was told sent.

        Airflow ends a task's process without the hooks by which OpenTelemetry would send what it
        has gathered (3.3).
        """
        try:
            yield
        except LaunchError as error:
            self._count("failures", {"class": _tag(error.failure_class)})
            raise
        finally:
            if self._counted:
                self._flush()

    def _count_restart(self, ended: RoundEnd) -> None:
        if ended.failure is not None:
            if not ended.failure.echo:
                self._count("restarts", {"class": _tag(ended.failure.failure_class)})
        elif self._has_rank_0 and ended.kind in {RoundEndKind.LOST, RoundEndKind.MEMBERSHIP}:
            name = "lost_node" if ended.kind is RoundEndKind.LOST else "membership"
            self._count("restarts", {"class": name})

    def _count(self, name: str, more: dict[str, str] | None = None) -> None:
        self._send(stats.incr, name, 1, more)

    def _time(self, name: str, seconds: float) -> None:
        self._send(stats.timing, name, 1000 * seconds)

    def _flush(self) -> None:
        try:
            flush = getattr(metrics.get_meter_provider(), "force_flush", None)
            if flush is not None:
                flush(timeout_millis=_FLUSH_WITHIN)
        except Exception as error:  # noqa: BLE001 - as in ``_send``
            self._note_broken(error)

    def _send(
        self,
        how: Callable[..., Any],
        name: str,
        value: float,
        more: dict[str, str] | None = None,
    ) -> None:
        self._counted = True
        try:
            how(f"{_PREFIX}{name}", value, tags={**self._tags, **(more or {})})
        except Exception as error:  # noqa: BLE001 - a deployment may have any backend
            self._note_broken(error)

    def _note_broken(self, error: Exception) -> None:
        if not self._is_broken:
            self._is_broken = True
            text = f"{type(error).__name__}: {error}"
            self._log.warning("Airflow's metrics do not take those of the job: %s", text)


def _tag(failure_class: FailureClass) -> str:
    """Backends of metrics disagree about blanks in a tag."""
    return failure_class.value.replace(" ", "_")
