"""The agent of a node whose rendezvous has a ledger: it carries out the protocol's instructions,
and reports back.

The rendezvous driver says when to start workers, when to stop them, and how it ends. This agent
carries that out and reports how workers ended; what is about steps goes to the agent's steering. It
decides nothing: restarts, budget and verdicts belong to the protocol. So a node that has finished
waits for its round's verdict, and runs again if the others must.
"""

from __future__ import annotations

import logging
import signal
import time
import uuid
from collections import deque
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from torch.distributed.elastic.agent.server.api import RunResult, WorkerState
from torch.distributed.elastic.events import EventSource, record
from torch.distributed.elastic.metrics.api import put_metric
from torch.distributed.elastic.multiprocessing.api import SignalException

from llutil.agent.base_agent import Agent
from llutil.agent.end_errors import error_of_end, values_lost
from llutil.agent.failures.report import FailureReport, process_failures
from llutil.agent.interruptible_call import interruptible
from llutil.agent.kept_values import keep_values
from llutil.agent.ranks_store import place_of_ranks_store
from llutil.agent.round_place import names_of_nodes, stop_kind, torch_workers
from llutil.agent.steering.agreement import Agreement
from llutil.agent.steering.ledger_agreement import LedgerAgreement
from llutil.agent.workers.rank_exit import RankExit
from llutil.agent_socket.round_end import RoundEnd, RoundEndKind
from llutil.errors import LaunchError, ServerLostError
from llutil.ledgers.served.job_server import JobServer
from llutil.rendezvous.driver.driver import AgentInstruction, Driver
from llutil.rendezvous.protocol import instructions as do
from llutil.rendezvous.protocol import observations as see
from llutil.rendezvous.protocol.records import Assignment, Stage
from llutil.time_budgets import LEDGER_CLOSED, LEDGER_LEFT

__all__ = ["LedgerAgent"]

_log = logging.getLogger(__name__)


class LedgerAgent(Agent):
    """One node of a job that meets through a ledger. ``server`` is what this node does so that the
    ledger is served; it is closed when this node is to stop, before its workers are stopped.
    """

    def __init__(
        self,
        *args: Any,
        driver: Driver,
        server: JobServer,
        **options: Any,
    ) -> None:
        super().__init__(*args, **options)
        self._driver = driver
        self._ledger_agreement = LedgerAgreement(driver, self.steering)
        self._server = server
        self._instructions: deque[AgentInstruction] = deque()
        self._driver_error: LaunchError | None = None
        self._assignment: Assignment | None = None
        self._values: dict[int, Any] = {}

    def _invoke_run(self, role: str = "") -> RunResult:  # noqa: ARG002 - torch's signature
        driver = self._driver
        self.stopwatch.begin()
        driver.start()
        self._loop.watch(driver.change_fd, self._take_instructions)
        try:
            return self._carry_out_instructions()
        except SignalException as stop:
            # Only this node was told to stop. The others go on if they are at least min_nodes.
            self._server.close()
            driver.tell(see.EndRequested(str(stop), stop=False))
            if self._values:  # the job may yet succeed, and does not need this node any more
                _log.warning("%s", self._kept_values())
            raise

    def _shutdown(self, death_sig: signal.Signals = signal.SIGTERM, timeout: float = 30) -> None:
        super()._shutdown(death_sig, timeout)
        if self._assignment is not None:
            self._driver.tell(see.WorkersStopped(self._assignment.stage))

    def leave(self) -> None:
        """Leave the rendezvous, unless that was done, and end the driver's thread. Call it when no
        worker is left.
        """
        driver = self._driver
        if driver.change_fd < 0:
            return  # the driver was never started
        self._loop.unwatch(driver.change_fd)
        driver.leave(see.EndRequested("the agent ends", stop=False), time.monotonic() + LEDGER_LEFT)
        driver.close(time.monotonic() + LEDGER_CLOSED)
        self._guardian.set_revocation(None)

    @property
    def members(self) -> tuple[int, tuple[str, ...]]:
        """The number of the last round here, and the names of its nodes."""
        sealed = self._assignment
        return super().members if sealed is None else (sealed.stage.round, names_of_nodes(sealed))

    def _take_instructions(self) -> None:
        self._guardian.set_revocation(self._driver.revocation)
        try:
            self._instructions.extend(self._driver.take_instructions())
        except LaunchError as error:
            self._driver_error = error
            self._loop.unwatch(self._driver.change_fd)

    def _carry_out_instructions(self) -> RunResult:
        while True:
            self._graceful_stop.check(self._workers)
            if self._driver_error is not None:
                return self._end_without_ledger(self._driver_error)
            if self._instructions:
                match self._instructions.popleft():
                    case do.StartWorkers(assignment=assignment, node=node):
                        self._start_round(assignment, node)
                    case do.StopWorkers() as stop:
                        self._stop(stop)
                    case do.RaiseGate() | do.OpenGate() | do.RefuseWish() as about_gate:
                        self._ledger_agreement.carry_out(about_gate)
                    case do.Finish(end=end):
                        return self._finish(end)
            elif self._workers is not None and (self._workers.ended or self._workers.failed):
                self._end_own_round()
            else:
                self._wait()

    def _round_name(self) -> str:
        assert self._assignment is not None
        nodes = " ".join(self._assignment.nodes)  # no identity of a node comes twice
        stage = self._assignment.stage
        return f"{stage.generation}-{stage.round}-{uuid.uuid5(uuid.NAMESPACE_OID, nodes).hex}"

    def _agreement(self) -> Agreement:
        return self._ledger_agreement

    def _wait(self) -> None:
        """One turn of the loop: until something happens or a check is due."""
        deadline = time.monotonic() + self._worker_group.spec.monitor_interval
        workers = self._workers
        if workers is None:
            self._loop.turn(deadline)
            return
        self._turn(workers, deadline)
        workers.refresh()

    def _start_round(self, assignment: Assignment, node: str) -> None:
        group, spec = self._worker_group, self._worker_group.spec
        self._server.settle()
        self._assignment = assignment
        self.report, self._values = None, {}  # they are of an earlier round
        self._remaining_restarts = spec.max_restarts - assignment.restarts
        self._record_event("RENDEZVOUS", self.stopwatch.round_found())
        began = time.monotonic()
        place = assignment.ranks_of(node)
        seat = assignment.seat(node)
        self._label = seat.label if seat else ""
        workers = torch_workers(place)
        self._record_event("ASSIGN_WORKER_RANKS", 1000 * (time.monotonic() - began))
        group.workers = workers
        group.group_rank = place.group_rank
        group.group_world_size = place.group_world_size
        if spec.rdzv_handler.use_agent_store:
            group.master_addr, group.master_port = assignment.host, assignment.port
        else:
            ask = partial(place_of_ranks_store, assignment, node)
            group.master_addr, group.master_port = interruptible(ask, self._loop, self.signals)
        for local_rank, pid in self._start_workers(group).items():
            worker = group.workers[local_rank]
            worker.id = pid
            event = self._construct_event("START", EventSource.WORKER, worker)
            record(event, spec.event_log_handler)
        group.state = WorkerState.HEALTHY

    def _record_event(self, state: str, milliseconds: float) -> None:
        """Record a step of the agent, as torch's agent does, before the agent changes what it knows
        of the round.
        """
        event = self._construct_event(state, EventSource.AGENT, duration_ms=milliseconds)
        record(event, self._worker_group.spec.event_log_handler)

    def _end_own_round(self) -> None:
        """The round's workers here have ended, or one failed: end the others, and report it."""
        assert self._workers is not None
        assert self._assignment is not None
        stage = self._assignment.stage
        state = self._monitor_workers(self._worker_group).state
        role = self._worker_group.spec.role
        put_metric(f"workers.{role}.remaining_restarts", self._remaining_restarts)
        put_metric(f"workers.{role}.{state.name.lower()}", 1)
        if not self._workers.failed:
            self._progress.tell(self._worker_group.workers)
            ended = self._end_workers(signal.SIGKILL, 0.0, self._kind_of_success)
            self._values = {one.rank: one.note for one in ended}
            self._driver.tell(see.WorkersEnded(stage, None))
        else:
            self._tell_failure(stage, self._end_failed_round())

    def _stop(self, stop: do.StopWorkers) -> None:
        """The round is over for this node: end its workers. A failure that happened here before
        that is reported: it may have caused the round's end.
        """
        ended, failed_here = self._end_round(failed=stop.round_failed)
        if failed_here:
            self._tell_failure(stop.stage, ended)
        self._observer.round_ended(RoundEnd(kind=stop_kind(stop), why=stop.why))
        self._driver.tell(see.WorkersStopped(stop.stage))

    def _end_round(self, *, failed: bool) -> tuple[list[RankExit], bool]:
        """End this node's workers: how each ended, and whether one had failed before by itself."""
        began = time.monotonic()
        if failed:
            ended = self._end_failed_round()
        else:
            ended = self._end_workers(signal.SIGTERM, self._graceful_stop.grace_left)
        return ended, any(one.failed_before(began) for one in ended)

    def _tell_failure(self, stage: Stage, ended: Sequence[RankExit]) -> None:
        report = self.report = self._failure_report(ended)
        self._driver.tell(see.WorkersEnded(stage, report.job_failure))

    def _finish(self, end: do.End) -> RunResult:
        group = self._worker_group
        run = f"run {group.spec.rdzv_handler.get_run_id()!r}"
        self.job_is_over = isinstance(end, do.FinishedWell | do.Late | do.Failed | do.Stopped)
        match end:
            case do.FinishedWell(why=why, recorded=recorded):
                if not recorded:
                    _log.warning("%s: %s; a node that comes later does not know it", run, why)
                return RunResult(state=WorkerState.SUCCEEDED, return_values=self._values)
            case do.Late(why=why, took_part=took_part):
                if took_part and self._job.order.has_values:
                    raise values_lost(run, why)
                _log.warning("%s", why)
                group.workers = []  # this node has no ranks in the job
                return RunResult(state=WorkerState.SUCCEEDED)
            case do.Failed(job_failure=job_failure):
                own = self.report or FailureReport(name=self._job.name, job_failure=job_failure)
                return self._failed(replace(own, job_failure=job_failure))
            case do.GaveUp(outcome=outcome) if outcome is not None:
                return self._end_without_ledger(error_of_end(end, run))
            case do.GaveUp() | do.Refused() | do.Stopped() | do.Left():
                raise error_of_end(end, run)

    def _failed(self, report: FailureReport) -> RunResult:
        self.report = report
        self._worker_group.state = WorkerState.FAILED
        failures = process_failures(report, self._error_files)
        return RunResult(state=WorkerState.FAILED, failures=failures)

    def _end_without_ledger(self, error: LaunchError) -> RunResult:
        """End with ``error``, after which the ledger says no more, by what is known of ranks here.

        If a rank failed, the job failed by that, and the error is told beside it. But a rank that
        only missed a peer may have missed the lost server's; the server's next try goes on then.
        What ranks returned is written into files: nobody can say whether the job succeeded.

        :raises LaunchError: ``error``, if no rank here failed by itself.
        """
        if self._workers is not None:
            ended, failed_here = self._end_round(failed=self._workers.failed)
            self._observer.round_ended(RoundEnd(kind=RoundEndKind.LOST, why=str(error)))
            if failed_here:
                self.report = self._failure_report(ended)
            self._values = {one.rank: one.note for one in ended if one.has_succeeded}
        if (report := self.report) is not None:
            failure = report.job_failure
            if failure.echo and isinstance(error, ServerLostError):
                why = f"{error}; what failed here only missed a peer: {failure.why}"
                raise ServerLostError(why) from error
            told = replace(failure, why=f"{failure.why}; besides, {error}")
            return self._failed(replace(report, job_failure=told, besides=str(error)))
        if self._values:
            raise type(error)(f"{error}; {self._kept_values()}") from error
        raise error

    def _kept_values(self) -> str:
        """Keep what ranks of this node returned; what was kept, and where, in words."""
        ranks = len(self._worker_group.workers)
        return keep_values(self._values, ranks, Path(self.kept_folder))
