"""The agent of a node that meets the others at a store that one node hosts.

It looks at the store at intervals, as torch's agents do. Unlike them, it waits without a timer for
nodes that have not finished, runs again if they must, and fails with the first failure of the whole
job, whichever node had it. Each agent counts restarts for itself, as torch's agents do.
"""

from __future__ import annotations

import logging
import signal
import time
from dataclasses import replace
from typing import Any

from torch.distributed.elastic.agent.server.api import RunResult, WorkerGroup, WorkerState

from llutil.agent.failures.report import FailureReport, process_failures
from llutil.agent.torch_agent import TorchBackendAgent
from llutil.failure import JobFailure
from llutil.rendezvous.hosted.handler import HostedJobFailed, HostedRendezvous
from llutil.rendezvous.protocol.records import Report, ReportKind

__all__ = ["HostedAgent"]

_log = logging.getLogger(__name__)

# Seconds between two looks at the store, which does not tell an agent of changes.
_STORE_PERIOD = 1.0


class HostedAgent(TorchBackendAgent):
    """One node of a job whose store is hosted by one of its nodes."""

    def __init__(self, *args: Any, handler: HostedRendezvous, **options: Any) -> None:
        super().__init__(*args, **options)
        self._handler = handler
        self._label = handler.label
        spec = self._worker_group.spec
        spec.monitor_interval = min(spec.monitor_interval, _STORE_PERIOD)
        if handler.hosts:
            _log.info("this node hosts the store of the job at %s", handler.endpoint)
            self._observer.ledger_served(handler.endpoint)

    def _invoke_run(self, role: str = "") -> RunResult:
        try:
            return super()._invoke_run(role)
        except HostedJobFailed as failed:
            self._end_workers(signal.SIGTERM, self._job.grace_period)
            return self._failed_result(failed.report, None)

    def _shutdown(self, death_sig: signal.Signals = signal.SIGTERM, timeout: float = 30) -> None:
        # Before the workers' grace period, so that other nodes need not wait for its end.
        if self._signals.caught is not None:
            self._handler.abandon()
        super()._shutdown(death_sig, timeout)

    def _on_success(self, group: WorkerGroup) -> RunResult | None:
        values = self._end_and_collect_values()
        self._handler.succeed()
        while True:
            self._signals.check()
            with self._signals.raising():
                if self._handler.num_nodes_waiting() > 0:
                    return None
                if self._handler.all_succeeded():
                    return RunResult(state=WorkerState.SUCCEEDED, return_values=values)
            self._loop.turn(time.monotonic() + group.spec.monitor_interval)

    def _on_failure(self, group: WorkerGroup) -> RunResult | None:
        failed = super()._on_failure(group)
        own = self.report
        if failed is None or own is None:
            return failed
        report = Report(
            generation=0,
            round=0,
            node=self._label,
            say=ReportKind.FAILED,
            job_failure=own.job_failure,
        )
        return self._failed_result(self._handler.fail(report), own)

    def _failed_result(self, report: Report, own: FailureReport | None) -> RunResult:
        self._worker_group.state = WorkerState.FAILED
        job_failure = report.job_failure or JobFailure()
        self.report = replace(
            own or FailureReport(name=self._job.name, job_failure=job_failure),
            job_failure=job_failure,
        )
        failures = process_failures(self.report, self._error_files)
        return RunResult(state=WorkerState.FAILED, failures=failures)
