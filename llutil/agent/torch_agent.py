"""The agent of a node that meets others through one of torch's rendezvous backends, or of a job
with one node.

torch's part is kept: its rendezvous, its assignment of ranks, its exit barrier, and one restart
budget for each agent. torch's agent notices events once per ``monitor_interval``. This agent
notices a worker's end, a failure and a stop at once. The interval remains as a safety net, and as
the period of asking torch's backends about new nodes, of which they do not tell by themselves.
"""

from __future__ import annotations

import logging
import signal
import time
import uuid
from pathlib import Path

from torch.distributed.elastic.agent.server.api import RunResult, WorkerGroup, WorkerState
from torch.distributed.elastic.metrics.api import put_metric
from torch.distributed.elastic.multiprocessing.api import SignalException

from llutil.agent.base_agent import Agent
from llutil.agent.failures.report import process_failures
from llutil.agent.interruptible_call import interruptible
from llutil.agent.kept_values import keep_values
from llutil.agent.steering.agreement import Agreement, NoAgreement, OneNodeAgreement
from llutil.backends.table import STATIC, backend_named

__all__ = ["TorchBackendAgent"]

_log = logging.getLogger(__name__)

_ROUND = "llutil/round"
"""The key of a round's name in the store of the rendezvous."""


class TorchBackendAgent(Agent):
    """One node of a job on torch's rendezvous backends."""

    def _rendezvous(self, worker_group: WorkerGroup) -> None:
        join = super()._rendezvous
        if backend_named(self._worker_group.spec.rdzv_handler.get_backend()) is STATIC:
            # torch's static rendezvous waits in C++, which no signal interrupts. After a stop the
            # call goes on alone, and nothing depends on it.
            interruptible(lambda: join(worker_group), self._loop, self.signals)
        else:
            with self.signals.raising():
                join(worker_group)
        self.stopwatch.round_found()

    def _round_name(self) -> str:
        group = self._worker_group
        if group.group_world_size == 1:
            return uuid.uuid4().hex
        # The rendezvous gives each round a part of its store that no other round has; torch's
        # static one has the same nodes, and the same store, in all rounds.
        static = backend_named(group.spec.rdzv_handler.get_backend()) is STATIC
        key = f"{_ROUND}/{self._start_count}" if static else _ROUND
        with self.signals.raising():
            if group.group_rank == 0:
                group.store.set(key, uuid.uuid4().hex)
            return str(group.store.get(key).decode())

    def _agreement(self) -> Agreement:
        if self._worker_group.group_world_size == 1:
            return OneNodeAgreement(self.steering)
        return NoAgreement(self.steering, self._worker_group.spec.rdzv_handler.get_backend())

    def _invoke_run(self, role: str = "") -> RunResult:  # noqa: ARG002 - torch's signature
        group = self._worker_group
        spec = group.spec
        self.stopwatch.begin()
        self._initialize_workers(group)
        while True:
            self._wait_for_round_end()
            group.state = self._monitor_workers(group).state
            put_metric(f"workers.{spec.role}.remaining_restarts", self._remaining_restarts)
            put_metric(f"workers.{spec.role}.{group.state.name.lower()}", 1)
            match group.state:
                case WorkerState.SUCCEEDED:
                    return self._on_success(group)
                case WorkerState.FAILED:
                    failed = self._on_failure(group)
                    if failed is not None:
                        return failed
                    self._restart_workers(group)
                case _:
                    _log.info("nodes are waiting to join; the round ends and the next one begins")
                    self._restart_workers(group)

    def _wait_for_round_end(self) -> None:
        """Wait until every rank has ended, one has failed, or nodes wait to join.

        :raises SignalException: a stop was asked.
        """
        workers = self._workers
        assert workers is not None
        interval = self._worker_group.spec.monitor_interval
        next_look = time.monotonic() + interval
        while not (workers.ended or workers.failed):
            self._graceful_stop.check(self._workers)
            if time.monotonic() >= next_look:
                next_look = time.monotonic() + interval
                workers.refresh()
                if self._nodes_wait():
                    return
                continue
            self._turn(workers, next_look)
        self._graceful_stop.check(self._workers)  # if a stop was asked, a failure is its result

    def _nodes_wait(self) -> bool:
        """Whether nodes wait to join. A stop comes first: it ends this node's ranks in order."""
        if self.signals.caught is not None:
            return False
        try:
            with self.signals.raising():
                return bool(self._worker_group.spec.rdzv_handler.num_nodes_waiting() > 0)
        except SignalException:
            self.signals.postpone()
            return False

    def _on_success(self, group: WorkerGroup) -> RunResult:
        """End a round whose ranks here have all succeeded."""
        self._progress.tell(self._worker_group.workers)
        # The ranks have ended, but children that they left may run on and are ended now.
        ended = self._end_workers(signal.SIGKILL, 0.0, self._kind_of_success)
        values = {one.rank: one.note for one in ended}
        if group.group_world_size > 1:
            try:
                # torch waits up to five minutes for the others, in C++, which no signal interrupts.
                interruptible(self._exit_barrier, self._loop, self.signals)
            except SignalException:
                kept = keep_values(values, len(group.workers), Path(self.kept_folder))
                _log.warning("%s", kept)
                raise
        return RunResult(state=WorkerState.SUCCEEDED, return_values=values)

    def _on_failure(self, group: WorkerGroup) -> RunResult | None:
        """End a failed round. None if the job should start again; then a restart was taken from the
        budget.
        """
        spec = group.spec
        ended = self._end_failed_round()
        report = self._failure_report(ended)
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
