"""The part of a node's elastic agent that does not depend on the rendezvous: its workers.

It is a subclass of torch's agent (``SimpleElasticAgent``) and records that one's events and
metrics. The worker processes are our own, on an event loop that notices every change at once.
Subclasses decide who is in a round and what its end means: ``torch_agent`` for torch's rendezvous
backends, ``ledger_agent`` for a ledger.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch.distributed.elastic.agent.server.api import (
    RunResult,
    SimpleElasticAgent,
    WorkerGroup,
    WorkerSpec,
    WorkerState,
)
from torch.distributed.elastic.agent.server.api import (
    Worker as TorchWorker,
)
from torch.distributed.elastic.metrics.api import prof

from llutil.agent.agent_job import AgentJob
from llutil.agent.event_loop import EventLoop
from llutil.agent.failures.describe import node_failure
from llutil.agent.failures.report import FailureReport
from llutil.agent.graceful_stop import GracefulStop
from llutil.agent.guardian.client import Guardian
from llutil.agent.hang.hang_finder import HangFinder
from llutil.agent.metrics import Stopwatch
from llutil.agent.observer import AgentObserver
from llutil.agent.progress_report import ProgressReport
from llutil.agent.rank_plans import rank_plan
from llutil.agent.start_methods.starter import RankServerLostError, Starter
from llutil.agent.steering.agreement import Agreement
from llutil.agent.steering.steering import Steering
from llutil.agent.stop_signals import StopSignals
from llutil.agent.worker_side.work_order import write_order
from llutil.agent.workers.rank_exit import RankExit
from llutil.agent.workers.rank_group import RankGroup
from llutil.agent.workers.rank_plan import RankPlan
from llutil.agent_socket.round_end import RoundEnd, RoundEndKind
from llutil.checkpoints.place import FOLDER
from llutil.system.oom_kills import OomWatch

__all__ = ["Agent"]

_log = logging.getLogger(__name__)


class Agent(SimpleElasticAgent):
    """Runs one ``AgentJob`` on this node. ``report`` is set if the job failed."""

    def __init__(
        self,
        spec: WorkerSpec,
        job: AgentJob,
        *,
        starter: Starter,
        guardian: Guardian,
        loop: EventLoop,
        observer: AgentObserver,
        signals: StopSignals,
    ) -> None:
        super().__init__(spec, shutdown_timeout=int(job.grace_period))
        self.report: FailureReport | None = None
        self.job_is_over = False
        """Whether the whole job is known to have ended, and not only this node's part."""
        self._job = job
        self._starter = starter
        self._guardian = guardian
        self._loop = loop
        self._observer = observer
        self.signals = signals
        self._workers: RankGroup | None = None
        self._hangs = HangFinder(job.hang_timeout, job.events, loop)
        self.steering = Steering(
            job.events, observer, saves=bool(job.checkpoints), every=job.save_period
        )
        self._graceful_stop = GracefulStop(signals, self.steering, job.grace_period)
        self.stopwatch = Stopwatch(spec.role, tell=observer.measured)
        self._label = ""
        """This node's name for people, if it has one."""
        self._oom_watch = OomWatch()
        self._start_count = 0
        self._furthest_step = 0
        """The greatest step that any rank of this node has reported, in any round."""
        self._error_files: dict[int, Path] = {}
        self._round = ""
        self._progress = ProgressReport(job.events, observer)

    @property
    def kept_folder(self) -> str:
        """Where values are kept that cannot be handed on."""
        return self._job.order.kept_folder

    @property
    def members(self) -> tuple[int, tuple[str, ...]]:
        """The number of the last round here, and the names of its nodes, if they are known."""
        return self._start_count, ()

    @property
    def _kind_of_success(self) -> RoundEndKind:
        return RoundEndKind.STOP if self.steering.stopped else RoundEndKind.SUCCESS

    @property
    def success_folder(self) -> str:
        """The job's folder of checkpoints, if this node had ranks in a job that has succeeded."""
        group = self._worker_group
        knows = bool(group.workers) and (self.job_is_over or group.group_rank == 0)
        return self._job.checkpoints.get(FOLDER, "") if knows else ""

    # The methods that torch's SimpleElasticAgent calls.

    @prof
    def _start_workers(self, worker_group: WorkerGroup) -> dict[int, Any]:
        self.signals.check()
        self._job.events.reset_slots()
        self._round = self._round_name()
        plans = [self._rank_plan(worker_group, worker) for worker in worker_group.workers]
        self._oom_watch = OomWatch()  # kills before this round are not its own
        try:
            self._workers = self._new_workers(plans)
        except RankServerLostError as error:
            _log.warning("%s; all ranks of this node are started again", error)
            self._workers = self._new_workers(plans)
        self._hangs.begin()
        self.steering.begin(
            self._agreement(), self._workers, first_node=worker_group.group_rank == 0
        )
        self._start_count += 1
        ranks = tuple(worker.global_rank for worker in worker_group.workers)
        world_size = worker_group.workers[0].world_size
        pids = dict(self._workers.pids)
        told = (world_size, ranks, tuple(pids.values()), self._restarts)
        _log.info(
            "round of %d ranks started; ranks %s are here, pids %s; %d restarts so far", *told
        )
        self.stopwatch.workers_started(self._restarts)
        self._observer.round(self._restarts, world_size, ranks)
        return pids

    @prof
    def _stop_workers(self, worker_group: WorkerGroup) -> None:  # noqa: ARG002 - torch's signature
        kind, why = RoundEndKind.MEMBERSHIP, "nodes are waiting to join"
        self._end_workers(signal.SIGTERM, self._graceful_stop.grace_left, kind, why)

    def _shutdown(self, death_sig: signal.Signals = signal.SIGTERM, timeout: float = 30) -> None:
        del timeout  # torch's copy of the grace period, rounded to whole seconds
        why = f"this node got {caught.name}" if (caught := self.signals.caught) else ""
        kind = RoundEndKind.SIGNAL if why else RoundEndKind.LOST
        self._end_workers(death_sig, self._graceful_stop.grace_left, kind, why)

    @prof
    def _monitor_workers(self, worker_group: WorkerGroup) -> RunResult:  # noqa: ARG002 - torch's
        workers = self._workers
        assert workers is not None
        workers.refresh()
        if workers.failed:
            return RunResult(state=WorkerState.FAILED)
        ended = workers.ended
        return RunResult(state=WorkerState.SUCCEEDED if ended else WorkerState.HEALTHY)

    # What subclasses have to say.

    def _round_name(self) -> str:
        """A name of the coming round, the same on all nodes; no other round of any life of the job
        has it.
        """
        raise NotImplementedError

    def _agreement(self) -> Agreement:
        """How the ranks of this round agree on a step."""
        raise NotImplementedError

    # The rest is for subclasses, and for the methods above.

    def _new_workers(self, plans: list[RankPlan]) -> RankGroup:
        order_fd = write_order(self._job.order)
        try:
            return RankGroup(
                plans,
                starter=self._starter,
                order_fd=order_fd,
                shared=self._job.shared,
                mark=self._job.mark,
                guardian=self._guardian,
                loop=self._loop,
                observer=self._observer,
                check=self.signals.check,
                prepare=self._remaining_restarts > 0 or self._worker_group.group_world_size > 1,
            )
        finally:
            os.close(order_fd)

    @property
    def _restarts(self) -> int:
        return int(self._worker_group.spec.max_restarts - self._remaining_restarts)

    def _rank_plan(self, group: WorkerGroup, worker: TorchWorker) -> RankPlan:
        plan, self._error_files[worker.local_rank] = rank_plan(
            self._job,
            group,
            worker,
            start=self._start_count,
            restarts=self._restarts,
            round_name=self._round,
        )
        return plan

    def _turn(self, workers: RankGroup, deadline: float) -> None:
        """One turn of the loop while workers run: until something happens, or a check of them or
        ``deadline`` is due.
        """
        self._progress.tell_when_due(self._worker_group.workers)
        due = min(
            self._progress.next_due,
            workers.next_deadline,
            self._hangs.next_look,
            self.steering.next_look,
        )
        self._loop.turn(min(deadline, due))
        self.steering.look()
        if why := self.steering.stacks.take():
            self._observer.steered(self._hangs.show_stacks(workers, why))
        self.stopwatch.account.look(self.steering.slots)
        self._hangs.look(workers, one_node=self._worker_group.group_world_size == 1)

    def _end_failed_round(self) -> list[RankExit]:
        """Stop workers whose round has failed, here or on another node. A rank that waits for one
        that has failed, in a collective, would use up any time that it is given.
        """
        grace_period = min(self._job.restart_grace, self._job.grace_period)
        return self._end_workers(signal.SIGTERM, grace_period)

    def _end_workers(
        self,
        number: signal.Signals,
        grace_period: float,
        kind: RoundEndKind | None = None,
        why: str = "",
    ) -> list[RankExit]:
        """Stop the round's workers, if any run, and leave none. Returns how each of them ended.
        ``kind`` and ``why`` are for the observer; a caller without them tells it itself.
        """
        workers, self._workers = self._workers, None
        if workers is None:
            return []
        self.stopwatch.round_over()
        self._hangs.end()
        workers.stop(number, grace_period, hurry=lambda: self.signals.urgent)
        self.steering.end()
        self._observer.round(self._restarts, 0, ())
        if kind is not None:
            self._observer.round_ended(RoundEnd(kind=kind, why=why))
        ended = workers.results()
        steps = (step for step, _ in self._job.events.progress().values())
        self._furthest_step = max(self._furthest_step, *steps, 0)
        self.stopwatch.ready()
        return ended

    def _failure_report(self, ended: Sequence[RankExit]) -> FailureReport:
        """The report on a round that failed on this node.

        :raises SignalException: the round did not fail. The signal that stops this agent was sent
            to its workers too, as systemd and some containers do, and the workers' ends were
            noticed first.
        """
        job_failure = node_failure(ended, self._oom_watch.kills())
        assert job_failure.failure is not None
        caught = self.signals.caught
        if caught is not None and job_failure.failure.exit_status == -caught:
            self.signals.check()
        own = replace(
            job_failure.failure,
            group_rank=self._worker_group.group_rank,
            label=self._label,
            host=socket.gethostname(),
            restart=self._restarts,
            max_restarts=self._worker_group.spec.max_restarts,
            step=self._furthest_step,
        )
        report = FailureReport(
            name=self._job.name,
            job_failure=replace(job_failure, failure=own),
            own=own,
            others=tuple(one for one in ended if one.rank != own.rank),
            log_folder=str(self._job.logs.path),
        )
        self._observer.round_ended(report.round_end)
        return report
