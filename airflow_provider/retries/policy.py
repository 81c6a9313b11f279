"""``ElasticRetryPolicy``: retries that know why the task failed. It is the default of
``ElasticLaunchOperator``.

Airflow asks a retry policy in the task's process, with the error, after each failure but one: when
the task process itself is killed. So the record of the tries, kept in the task's state store, says
which try has begun; one whose end nobody has told is classified when the next one begins, by what
its agent has left on the worker's disk.

A decision is ``airflow_provider.retries.rules``'s; this module reads and writes what it needs. A
DAG file that names the policy pays for importing this module and ``llutil.errors``, nothing more.
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
"""The key of the record in the task's state store."""

_log = logging.getLogger(__name__)


class NoMoreTriesError(LaunchError):
    """The task process of an earlier try was killed, in a way that is not tried again; found when
    this try began.
    """


@dataclass(frozen=True, kw_only=True)
class ElasticRetryPolicy(RetryPolicy):
    """What follows a failure, by its class; each parameter is the row of one class (see
    ``RetryRow``).

    There are never more tries than the task's ``retries`` grant. Budgets begin anew when a task
    instance that has ended is cleared; one that is cleared while it runs keeps them, since Airflow
    (3.3) grants it one try more and no retries. An error that is none of a launch, such as
    ``execution_timeout``'s, is left to ``retries`` and ``retry_delay``.

    :param infrastructure: the store, the network, a node, or whoever kills with SIGKILL.
    :param preemption: somebody asked for the end: the worker is stopped, or a signal came.
    :param hang: a collective or a wait for other ranks ran into its timeout.
    :param out_of_memory: an allocation failed, or the kernel killed for lack of memory.
    :param user_code: exceptions, exit codes and crashes of the user's code.
    :param bad_configuration: the user's code never began.

    :raises ConfigError: a row is no ``RetryRow``.
    """

    infrastructure: RetryRow = RetryRow(retries=5, delay=30, growth=2, longest=600)
    preemption: RetryRow = RetryRow(retries=10, delay=10, growth=1.5, longest=300)
    hang: RetryRow = RetryRow(retries=2, delay=60)
    out_of_memory: RetryRow = RetryRow(retries=1, delay=30)
    user_code: RetryRow = RetryRow(alike=2)
    bad_configuration: RetryRow = RetryRow(retries=0)

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
        """Decide what follows ``exception``, and keep count of it. Airflow asks, in the task's
        process.
        """
        if isinstance(exception, NoMoreTriesError):
            return RetryDecision.fail(str(exception))
        store = _Store(context)
        record = store.read().in_life(max_tries)
        if not isinstance(exception, LaunchError):
            store.write(record.closed())
            kind = type(exception).__name__
            why = f"{kind}: no failure of a launch; the task's own retries and retry_delay apply"
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
        """A try begins: classify the one before if nobody was asked about its end, and note that
        this one is there.

        ``left`` is what an earlier try's agent has left on this host. A try that somebody asked for
        by a clear is never refused.

        :raises NoMoreTriesError: what the try before died of is not to be tried again.
        """
        ti, store, host = context["ti"], _Store(context), socket.gethostname()
        life = getattr(ti, "max_tries", 0) or 0
        record = store.read().in_life(life)
        if record.try_number > ti.try_number:
            # Of a DAG run that was deleted, and has come again under the same id.
            record = TriesRecord(life=life)
        clears = getattr(context.get("dag_run"), "clear_number", 0) or 0
        untold = record.open and record.try_number < ti.try_number
        if untold and (clears != record.clears or record.try_number > life):
            # A clear of a running task grants another try, whatever was granted before, and changes
            # no max_tries (Airflow 3.3). Only the whole run's clears are counted.
            log.info(
                "tasks of this DAG run were cleared while try %d ran: whatever that died of, this "
                "one is wanted",
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
                error.step = lost.failure.step if lost.failure is not None else 0
                raise error
            log.warning("%s", decision.why)
            record = decision.record
        store.write(record.begun(ti.try_number, host, clears))


class _Store:
    """The record in the state store of the task instance that ``context`` belongs to; nowhere
    outside a task.

    A store that fails keeps no task from running or failing: without a record, decisions are made
    as for a first try.
    """

    def __init__(self, context: Any) -> None:
        self._accessor = context.get("task_state_store") if context else None

    def read(self) -> TriesRecord:
        """What is there; a blank record if there is nothing."""
        if self._accessor is None:
            return TriesRecord()
        from airflow.sdk.exceptions import AirflowRuntimeError

        try:
            found = self._accessor.get(KEY)
            return TriesRecord() if found is None else TriesRecord.from_json(found)
        except (AirflowRuntimeError, ValueError) as error:
            _log.warning(
                "the record of this task's earlier tries cannot be read, and starts anew: %s", error
            )
            return TriesRecord()

    def write(self, record: TriesRecord) -> None:
        """Keep ``record``."""
        if self._accessor is None:
            return
        from airflow.sdk.exceptions import AirflowRuntimeError

        try:
            self._accessor.set(KEY, record.to_json())
        except AirflowRuntimeError as error:
            _log.warning("the record of this task's tries cannot be kept: %s", error)
