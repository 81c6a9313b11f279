"""``JobSpans``: a job's launches and rounds as spans of OpenTelemetry, below the task's own span.

============================  ==========================================================
``elastic_launch.launch``     from an agent's start to its end; attribute: ``run_id``, as its agent
                              tells it
``elastic_launch.rendezvous`` until the node knew its ranks in a round
``elastic_launch.round``      while the round's ranks ran; attributes: restarts so far, world size,
                              this node's ranks, how it ended and why; an event for each
                              committed checkpoint
============================  ==========================================================

Airflow gives the tracer what ``[traces]`` says. Without that, a span costs microseconds and goes
nowhere.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from opentelemetry import trace
from opentelemetry.trace import Span, Status, StatusCode

from airflow_provider.agent_client.job_listener import JobListener, Steer
from llutil.agent_socket.round_end import RoundEndKind
from llutil.task_link.job_events import (
    JobEvent,
    Measured,
    NodeStatus,
    RoundBegan,
    RoundEnded,
    Saved,
)

__all__ = ["JobSpans"]

_FAILED = {RoundEndKind.FAILURE, RoundEndKind.LOST}


class JobSpans(JobListener):
    """The spans of one try of a task; made on the thread that runs the task.

    A deployment may have a sampler and processors of its own. What they raise costs spans, and one
    line of the log.
    """

    def __init__(self, log: logging.Logger) -> None:
        self._log = log
        self._launch: Span | None = None
        self._has_run_id = False
        self._round: Span | None = None
        self._round_over: int | None = None
        self._is_broken = False

    def begin(self, steer: Steer) -> None:
        """See ``JobListener``."""
        del steer
        self._has_run_id = False
        with self._harmless():
            self._launch = _tracer().start_span("elastic_launch.launch")

    def hear(self, event: JobEvent) -> None:
        """See ``JobListener``."""
        with self._harmless():
            self._hear(event)

    def end(self) -> None:
        """See ``JobListener``."""
        with self._harmless():
            self._end_round()
        launch, self._launch = self._launch, None
        if launch is not None:
            with self._harmless():
                launch.end()

    def _hear(self, event: JobEvent) -> None:
        match event:
            case NodeStatus(status=status) if self._launch is not None and not self._has_run_id:
                self._launch.set_attribute("elastic_launch.run_id", status.run_id)
                self._has_run_id = True
            case Measured(what="rendezvous", seconds=seconds):
                now = time.time_ns()
                began = now - round(1e9 * seconds)
                self._child("elastic_launch.rendezvous", began).end(now)
            case RoundBegan(restart=restart, world_size=world_size, ranks=ranks) if ranks:
                self._begin_round(
                    {
                        "elastic_launch.restarts": restart,
                        "elastic_launch.world_size": world_size,
                        "elastic_launch.ranks": ",".join(map(str, ranks)),
                    }
                )
            case RoundBegan():
                # How it ended may be told later.
                self._round_over = time.time_ns()
            case RoundEnded(end=end) if self._round is not None:
                ended = {"elastic_launch.end": end.kind.value, "elastic_launch.why": end.why}
                self._round.set_attributes(ended)
                if end.kind in _FAILED:
                    self._round.set_status(Status(StatusCode.ERROR, end.why))
            case Saved(step=step, path="") if self._round is not None:
                self._round.add_event("checkpoint", {"elastic_launch.step": step})
            case _:
                pass

    def _child(self, name: str, began: int | None = None) -> Span:
        parent = None if self._launch is None else trace.set_span_in_context(self._launch)
        return _tracer().start_span(name, context=parent, start_time=began)

    def _begin_round(self, attributes: Mapping[str, str | int]) -> None:
        with self._harmless():
            self._end_round()
        self._round = self._child("elastic_launch.round")
        self._round.set_attributes(attributes)

    def _end_round(self) -> None:
        ended, self._round = self._round, None
        over, self._round_over = self._round_over, None
        if ended is not None:
            ended.end(over)

    @contextmanager
    def _harmless(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # noqa: BLE001 - a deployment may have any processor
            if not self._is_broken:
                self._is_broken = True
                text = f"{type(error).__name__}: {error}"
                self._log.warning("OpenTelemetry does not take all spans of the job: %s", text)


def _tracer() -> trace.Tracer:
    return trace.get_tracer("airflow_provider.telemetry")
