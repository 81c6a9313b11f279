"""Waits for the agent of an earlier try of the same task instance on this host, and ends it if it
takes too long.

When Airflow kills a task, its agent lives on for the grace period, to save a checkpoint. A next try
that began in that time would train beside it, on the same GPUs and files. So it waits first. The
agent's file (``llutil.task_link.agent_record``) has its process id. Another process may have got
that id since then: so the process must also have the job's mark in its environment, as every
process of the job has. Only environments of this user's processes can be read.
"""

from __future__ import annotations

import logging
import os
import select
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from llutil.errors import ConfigError, InfrastructureError, StoppedError
from llutil.system.job_mark import MARK_VARIABLE
from llutil.system.kill_all import kill_all
from llutil.system.process_table import stat_of
from llutil.system.send_signal import send_signal
from llutil.task_link.agent_record import AgentRecord
from llutil.time_budgets import KILLED, StopBudget

__all__ = ["await_earlier_try"]

_CHECK_PERIOD = 0.5
"""How late a stop is noticed at most, in seconds."""


def await_earlier_try(
    path: Path,
    log: logging.Logger,
    *,
    stopped: Callable[[], bool] = lambda: False,
    patience: float | None = None,
) -> AgentRecord | None:
    """Wait until no process of an earlier try's job lives; then return what its agent has written
    into the file ``path``, or None if there is no such file.

    Waits for the agent for ``patience`` seconds; None: for the time that follows from its grace
    period. After that it ends the job by SIGKILL. If the earlier try's task still lives, because
    Airflow has lost track of it, it is killed first: it would launch another agent. Such a job does
    not end by itself, so the wait is shorter until something asks it to end.

    :raises StoppedError: this try was stopped meanwhile, as ``stopped`` says.
    :raises InfrastructureError: a process of the earlier try cannot be ended.
    """
    record = _read(path, log)
    if record is None:
        return None
    agent = _open_agent(record)
    if agent is not None:
        try:
            _await(record, path, agent, log, stopped, patience)
        finally:
            os.close(agent)
    remaining = kill_all({}, record.mark, time.monotonic() + KILLED)
    if remaining.ours:
        raise InfrastructureError(
            f"an earlier try of this task does not end, {KILLED:g} s after SIGKILL: {remaining}"
        )
    if remaining:
        log.warning("an earlier try of this task has ended, but not all of it: %s", remaining)
    return _read(path, log)  # the agent may have written again


def _read(path: Path, log: logging.Logger) -> AgentRecord | None:
    try:
        return AgentRecord.read(path)
    except ConfigError as error:
        log.warning("the file of an earlier try's agent cannot be read, and is ignored: %s", error)
        return None


def _open_agent(record: AgentRecord) -> int | None:
    """A pidfd of the agent's process; None if it does not live, or another process has its id."""
    try:
        fd = os.pidfd_open(record.pid)
    except (ProcessLookupError, OSError):
        return None
    with suppress(OSError):  # the process has ended meanwhile, or belongs to another user
        environment = Path(f"/proc/{record.pid}/environ").read_bytes()
        if f"{MARK_VARIABLE}={record.mark}".encode() in environment.split(b"\0"):
            return fd
    os.close(fd)
    return None


def _await(
    record: AgentRecord,
    path: Path,
    agent: int,
    log: logging.Logger,
    stopped: Callable[[], bool],
    given: float | None,
) -> None:
    budget = StopBudget(record.grace_period)
    ending = _is_ending(record)
    patience = budget.earlier_try if ending else budget.settled
    if given is not None:
        patience = given
    log.warning(
        "the agent of an earlier try (try %s, pid %d) still runs on this host; its grace period "
        "is %g s; this try waits for it, at most %g s",
        record.launch,
        record.pid,
        record.grace_period,
        patience,
    )
    began = since = time.monotonic()
    poll = select.poll()
    poll.register(agent, select.POLLIN)
    while not poll.poll(1000 * _CHECK_PERIOD):
        now = time.monotonic()
        if stopped():
            raise StoppedError(
                f"stopped while it waited for the agent of an earlier try (pid {record.pid}) to "
                "end its job"
            )
        if not ending and _is_ending(_read(path, log) or record):
            ending, since = True, now
            patience = budget.earlier_try if given is None else given
            log.warning(
                "the earlier try's job was asked to end; this try waits at most %g s more", patience
            )
        if now > since + patience:
            _end_by_force(record, log, now - began)
            return
    log.info(
        "the agent of the earlier try has ended after %.1f s; this try begins",
        time.monotonic() - began,
    )


def _is_ending(record: AgentRecord) -> bool:
    """Whether its job has been asked to end; the end of its task asks it, too."""
    return bool(record.stop_reason) or record.task_gone or not _task(record)


def _end_by_force(record: AgentRecord, log: logging.Logger, waited: float) -> None:
    task = _task(record)
    log.error(
        "the agent of the earlier try (pid %d) still runs after %.0f s: it%s and all processes of "
        "its job get SIGKILL",
        record.pid,
        waited,
        f", its task (pid {task})" if task else "",
    )
    if task:
        # It leads a process group, as Airflow's do (3.3).
        send_signal(task, int(record.task_start_ticks), signal.SIGKILL, group=True)


def _task(record: AgentRecord) -> int:
    """The process id of the earlier try's task, if it lives and is not this process; else 0."""
    stat = stat_of(record.task_pid) if record.task_pid > 1 else None
    lives = stat is not None and stat.lives and str(stat.start) == record.task_start_ticks
    return record.task_pid if lives and record.task_pid != os.getpid() else 0
