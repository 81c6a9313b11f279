"""``ElasticRetryPolicy``: decides on retries by the class of a failure. It is the default of
``ElasticLaunchOperator``.

Airflow calls a retry policy in the task's process, with the error, after each failure except one:
if the task process itself was killed. So this policy records in the task's state store which try
has begun. If the end of a try was not recorded, the next try classifies it by what the agent has
written on the worker's disk.

``airflow_provider.retries.rules`` makes the decision; this module reads and writes the record. A
DAG file that names the policy imports only this module and ``llutil.errors``.
"""

from __future__ import annotations

import datetime as dt
import logging
import socket
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

from airflow.sdk import RetryDecision, RetryPolicy
from airflow.sdk.definitions.retry_policy import RetryAction

from airflow_provider.retries.lost_try import failure_of_lost_try
from airflow_provider.retries.rules import RetryRow, TriesRecord, decide
from llutil.errors import ConfigError, LaunchError, Problem
from llutil.failure import FailureClass

if TYPE_CHECKING:
    from airflow.sdk import Context

    from llutil.task_link.agent_record import AgentRecord

__all__ = ["KEY", "ElasticRetryPolicy", "NoMoreTriesError", "RetryRow"]

KEY = "elastic_launch_retries"
"""The key, in the task's state store, of the retries that each class of failures has used."""

_log = logging.getLogger(__name__)


class NoMoreTriesError(LaunchError):
    """The task process of an earlier try was killed for a reason that is not retried. This try
    found that when it began.

    What to do: clear the task to run it again; give the class more retries in ``retry_policy``.
    """


@dataclass(frozen=True, kw_only=True)
class ElasticRetryPolicy(RetryPolicy):
    """What follows a failure. Each parameter is the ``RetryRow`` of one class of failures.

    There are never more tries than the task's ``retries`` allow. The counts begin at 0 again when a
    task instance that has ended is cleared. If it is cleared while it runs they go on, since
    Airflow (3.3) then grants one more try and no retries. For errors that are not a launch's, such
    as ``execution_timeout``'s, the task's ``retries`` and ``retry_delay`` apply.

    :param infrastructure: the store, the network or a node failed, or somebody sent SIGKILL.
    :param preemption: the job was asked to end: the worker is stopped, or a signal came.
    :param hang: a wait for other ranks ran into its timeout, a rank made no more progress, or did
        not end.
    :param out_of_memory: an allocation failed, or the kernel killed for lack of memory.
    :param user_code: exceptions, exit codes and crashes of the user's code.
    :param bad_configuration: the user's code never began.
    :param result: the job succeeded, but what a rank returned cannot be handed on.

    :raises ConfigError: a row is not a ``RetryRow``.
    """

    infrastructure: RetryRow = RetryRow(retries=5, delay=30, growth=2, longest=600)
    preemption: RetryRow = RetryRow(retries=10, delay=10, growth=1.5, longest=300)
    hang: RetryRow = RetryRow(retries=2, delay=60)
    out_of_memory: RetryRow = RetryRow(retries=1, delay=30)
    user_code: RetryRow = RetryRow(alike=2)
    bad_configuration: RetryRow = RetryRow(retries=0)
    result: RetryRow = RetryRow(retries=0)

    def __post_init__(self) -> None:
        problems = [
            Problem(f"ElasticRetryPolicy.{one.name}", f"is {value!r}; wanted a RetryRow(...)")
            for one in fields(self)
            if not isinstance(value := getattr(self, one.name), RetryRow)
        ]
        if problems:
            raise ConfigError(problems)

    def row(self, failure_class: FailureClass) -> RetryRow:
        """The row of a class."""
        row: RetryRow = getattr(self, failure_class.name.lower())
        return row

    def evaluate(
        self,
        exception: BaseException,
        try_number: int,
        max_tries: int,
        context: Context | None = None,
    ) -> RetryDecision:
        """Decide what follows ``exception``, and record it. Airflow calls this in the task's
        process.
        """
        if isinstance(exception, NoMoreTriesError):
            return RetryDecision.fail(str(exception))
        store = _TriesRecordStore(context)
        record = store.read().in_life(max_tries)
        if not isinstance(exception, LaunchError):
            store.write(record.closed())
            kind = type(exception).__name__
            task = getattr(context["ti"], "task", None) if context else None
            if getattr(task, "job_succeeded", False):
                return RetryDecision.fail(
                    f"{kind}: not tried again: the job had succeeded, and another try would repeat "
                    "it; what its ranks returned is in XCom under rank_<n>, or where this log says"
                )
            why = f"{kind}: not a failure of a launch; the task's own retries and retry_delay apply"
            return RetryDecision(RetryAction.DEFAULT, reason=why)
        told = next(iter(str(exception).splitlines()), "")[:200]
        decision = decide(
            self.row(exception.failure_class),
            record,
            replace(exception.job_failure, why=told),
            tries_left=max_tries - try_number + 1,
        )
        store.write(decision.record)
        if not decision.again:
            return RetryDecision.fail(decision.why)
        delay = None if decision.delay is None else dt.timedelta(seconds=decision.delay)
        return RetryDecision.retry(delay, decision.why)

    def begin(
        self, context: Mapping[str, Any], left: AgentRecord | None, log: logging.Logger
    ) -> None:
        """Record that a try begins. If the end of the try before was not recorded, classify it.

        ``left`` is what an earlier try's agent has written on this host. A try that follows a clear
        is never refused.

        :raises NoMoreTriesError: the try before failed for a reason that is not retried.
        """
        ti, store, host = context["ti"], _TriesRecordStore(context), socket.gethostname()
        life = getattr(ti, "max_tries", 0) or 0
        record = store.read().in_life(life)
        if record.try_number > ti.try_number:
            # It is of a DAG run that was deleted; this one has the same id.
            record = TriesRecord(life=life)
        clears = getattr(context.get("dag_run"), "clear_number", 0) or 0
        untold = record.open and record.try_number < ti.try_number
        if untold and (clears != record.clears or record.try_number > life):
            # The clear of a running task always grants another try, and does not change max_tries
            # (Airflow 3.3). Airflow counts only the clears of the whole run.
            log.info(
                "tasks of this DAG run were cleared while try %d ran: this try goes on, whatever "
                "ended that one",
                record.try_number,
            )
            record = record.closed()
        elif untold:
            lost = failure_of_lost_try(left, record, host)
            decision = decide(
                self.row(lost.failure_class),
                record,
                lost,
                tries_left=life - record.try_number + 1,
                asked=False,
            )
            if not decision.again:
                store.write(decision.record)
                error = NoMoreTriesError(decision.why)
                error.job_failure = lost
                raise error
            log.warning("%s", decision.why)
            record = decision.record
        store.write(record.begun(ti.try_number, host, clears))


class _TriesRecordStore:
    """Reads and writes the record in the state store of the task instance of ``context``. Outside a
    task it does nothing.

    If the store fails, the task still runs, and decisions are made as for a first try.
    """

    def __init__(self, context: Any) -> None:
        self._accessor = context.get("task_state_store") if context else None

    def read(self) -> TriesRecord:
        """The record; a new one if there is none, or it cannot be read."""
        if self._accessor is None:
            return TriesRecord()
        try:
            found = self._accessor.get(KEY)
            return TriesRecord() if found is None else TriesRecord.from_json(found)
        except Exception as error:  # noqa: BLE001 - the store may be the user's own
            _log.warning(
                "the record of this task's earlier tries cannot be read; a new one begins: %s: %s",
                type(error).__name__,
                error,
            )
            return TriesRecord()

    def write(self, record: TriesRecord) -> None:
        """Write ``record``."""
        if self._accessor is None:
            return
        try:
            self._accessor.set(KEY, record.to_json())
        except Exception as error:  # noqa: BLE001 - as above
            kind = type(error).__name__
            _log.warning("the record of this task's tries cannot be written: %s: %s", kind, error)
