"""The agent of a node that meets others through one of torch's rendezvous backends, or has none to
meet.

torch's part is kept: its rendezvous, its assignment of ranks, its exit barrier, one restart budget
an agent. What it polls for once per ``monitor_interval`` wakes this agent at once: a worker's end,
a failure, a stop. The interval remains as a safety net, and as the period at which torch's
backends, which tell nobody anything, are asked about newcomers.
"""

from __future__ import annotations

import logging
import signal
import time
from typing import Any

from torch.distributed.elastic.agent.server.api import RunResult, WorkerGroup, WorkerState
from torch.distributed.elastic.metrics.api import put_metric

from llutil.agent.base_agent import Agent
from llutil.agent.failures.report import process_failures
from llutil.agent.interruptible_call import interruptible

__all__ = ["TorchBackendAgent"]

_log = logging.getLogger(__name__)


class TorchBackendAgent(Agent):
    """One node of a job that meets as torch does."""

    def _rendezvous(self, worker_group: WorkerGroup) -> None:
        join = super()._rendezvous
        if self._worker_group.spec.rdzv_handler.get_backend() == "static":
            # It waits in C++ alone. Left to itself after a stop, it waits on, and nobody counts on
            # it.
            interruptible(lambda: join(worker_group), self._loop, self._signals)
        else:
            with self._signals.raising():
                join(worker_group)
        self._stopwatch.round_found()

    def _invoke_run(self, role: str = "") -> RunResult:  # noqa: ARG002 - torch's signature
        group = self._worker_group
        spec = group.spec
        self._stopwatch.begin()
        self._initialize_workers(group)
        while True:
            self._watch()
            group.state = self._monitor_workers(group).state
            put_metric(f"workers.{spec.role}.remaining_restarts", self._remaining_restarts)
            put_metric(f"workers.{spec.role}.{group.state.name.lower()}", 1)
            match group.state:
                case WorkerState.SUCCEEDED:
                    succeeded = self._succeed(group)
                    if succeeded is not None:
                        return succeeded
                    _log.info("another node has to run again, and all do with it")
                    self._restart_workers(group)
                case WorkerState.FAILED:
                    failed = self._fail(group)
                    if failed is not None:
                        return failed
                    self._restart_workers(group)
                case _:
                    _log.info("nodes are waiting to join; the round ends and the next one begins")
                    self._restart_workers(group)

    def _watch(self) -> None:
        """Wait until the round is over: every rank ended, one failed, nodes wait to join, or a stop
        was asked.

        :raises SignalException: a stop was asked.
        """
        workers = self._workers
        assert workers is not None
        interval = self._worker_group.spec.monitor_interval
        next_look = time.monotonic() + interval
        while not (workers.ended or workers.failed):
            self._signals.check()
            self._show_progress_when_due()
            if time.monotonic() >= next_look:
                next_look = time.monotonic() + interval
                workers.refresh()
                with self._signals.raising():
                    if self._worker_group.spec.rdzv_handler.num_nodes_waiting() > 0:
                        return
                continue
            workers.end_overdue()
            self._loop.turn(min(next_look, self._next_progress, workers.next_deadline))
        if workers.failed:
            self._signals.check()  # a failure that comes with a stop is no failure

    def _succeed(self, group: WorkerGroup) -> RunResult | None:
        """End a round whose ranks here have all succeeded. None if they have to run again."""
        values = self._end_succeeded()
        if group.group_world_size > 1:
            with self._signals.raising():
                self._exit_barrier()
        return RunResult(state=WorkerState.SUCCEEDED, return_values=values)

    def _end_succeeded(self) -> dict[int, Any]:
        """What the ranks returned, which have ended; children that they left have not, and do so
        now.
        """
        if self._observer.wants_progress:
            self._show_progress()
        return {one.rank: one.note for one in self._end_workers(signal.SIGKILL, 0.0)}

    def _fail(self, group: WorkerGroup) -> RunResult | None:
        """End a failed round. None if the job should start again, which has then been charged."""
        spec = group.spec
        ended = self._end_workers(signal.SIGTERM, self._job.grace_period)
        report = self._report_on(ended)
        if self._remaining_restarts > 0 and not report.job_failure.fatal:
            self._remaining_restarts -= 1
            assert report.own is not None
            _log.warning(
                "rank %d failed (%s); restart %d of %d",
                report.own.rank,
                report.own.reason,
                self._restarts,
                spec.max_restarts,
            )
            return None
        self.report = report
        group.state = WorkerState.FAILED
        return RunResult(
            state=WorkerState.FAILED, failures=process_failures(report, self._error_files)
        )
