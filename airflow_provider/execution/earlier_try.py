"""The agent of an earlier try of the same task instance, on the same host: waited for, and ended if
it takes too long.

When Airflow kills a task, its agent outlives it by the grace period, to save a checkpoint. A next
try that began meanwhile would train beside it, with the same GPUs and files. So it waits first. The
file that the agent leaves (``llutil.task_link.agent_record``) says who it is; that its number was
given to somebody else since then is seen by the job's mark, which is in the environment of every
process of the job, and which only processes of this user show.
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
from llutil.system.processes import kill_all, start_ticks
from llutil.task_link.agent_record import AgentRecord
from llutil.time_budgets import KILLED, StopBudget

__all__ = ["take_over"]

_TICK = 0.5  # seconds: so late, at most, a stop is noticed


def take_over(
    path: Path,
    log: logging.Logger,
    *,
    stopped: Callable[[], bool] = lambda: False,
    patience: float | None = None,
) -> AgentRecord | None:
    """What an earlier try's agent has left in the file ``path``, once no process of its job lives;
    None if nothing.

    Waits for the agent for ``patience`` seconds, or for what follows from its grace period, and
    then ends it and its job by SIGKILL; and its task before that, if it lives, as where Airflow has
    lost sight of it: it would launch another agent. Such a job does not end by itself, so it gets
    less time, until somebody asks it to end.

    :raises StoppedError: this try was stopped meanwhile, as ``stopped`` says.
    :raises InfrastructureError: a process of the earlier try cannot be ended.
    """
    left = _read(path, log)
    if left is None:
        return None
    agent = _living(left)
    if agent is not None:
        try:
            _await(left, path, agent, log, stopped, patience)
        finally:
            os.close(agent)
    remaining = kill_all((), left.mark, time.monotonic() + KILLED)
    if remaining:
        raise InfrastructureError(
            f"processes {sorted(remaining)} of an earlier try of this task do not end, "
            f"{KILLED:g} s after SIGKILL"
        )
    return _read(path, log)  # it has written again since


def _read(path: Path, log: logging.Logger) -> AgentRecord | None:
    try:
        return AgentRecord.read(path)
    except ConfigError as error:
        log.warning("what an earlier try has left cannot be read, and is not heeded: %s", error)
        return None


def _living(left: AgentRecord) -> int | None:
    """A descriptor of the process, if it lives and is the one that is meant; its number cannot be
    reused for that.
    """
    try:
        fd = os.pidfd_open(left.pid)
    except (ProcessLookupError, OSError):
        return None
    with suppress(OSError):  # it has gone meanwhile, or is another user's
        environment = Path(f"/proc/{left.pid}/environ").read_bytes()
        if f"{MARK_VARIABLE}={left.mark}".encode() in environment.split(b"\0"):
            return fd
    os.close(fd)
    return None


def _await(
    left: AgentRecord,
    path: Path,
    agent: int,
    log: logging.Logger,
    stopped: Callable[[], bool],
    given: float | None,
) -> None:
    budget = StopBudget(left.grace_period)
    ending = _is_ending(left)
    patience = budget.earlier_try if ending else budget.settled
    if given is not None:
        patience = given
    log.warning(
        "the agent of an earlier try (try %s, pid %d) still ends its job on this host, for which "
        "it has %g s of grace; this try waits for it, %g s at most",
        left.launch,
        left.pid,
        left.grace_period,
        patience,
    )
    began = since = time.monotonic()
    poll = select.poll()
    poll.register(agent, select.POLLIN)
    while not poll.poll(1000 * _TICK):
        now = time.monotonic()
        if stopped():
            raise StoppedError(
                f"stopped while it waited for the agent of an earlier try (pid {left.pid}) to end "
                "its job"
            )
        if not ending and _is_ending(_read(path, log) or left):
            ending, since = True, now
            patience = budget.earlier_try if given is None else given
            log.warning("it was asked to end now; this try waits %g s more at most", patience)
        if now > since + patience:
            _end_by_force(left, log, now - began)
            return
    log.info(
        "the agent of the earlier try has ended after %.1f s; this try begins",
        time.monotonic() - began,
    )


def _is_ending(left: AgentRecord) -> bool:
    """Whether its job has been asked to end, or is asked by its task's death."""
    return bool(left.stop_reason) or left.task_gone or not _task(left)


def _end_by_force(left: AgentRecord, log: logging.Logger, waited: float) -> None:
    task = _task(left)
    log.error(
        "the agent of the earlier try (pid %d) still runs after %.0f s: SIGKILL to it%s and all of "
        "its job",
        left.pid,
        waited,
        f", its task (pid {task})" if task else "",
    )
    if task:
        _kill(task)


def _task(left: AgentRecord) -> int:
    """The process of the earlier try's task, if it lives and is not this very one; else 0."""
    lives = left.task_start_ticks != "" and start_ticks(left.task_pid) == left.task_start_ticks
    return left.task_pid if lives and left.task_pid != os.getpid() else 0


def _kill(task: int) -> None:
    """SIGKILL a task's process, and its group if it leads one, as Airflow's do (3.3)."""
    with suppress(ProcessLookupError):
        if os.getpgid(task) == task:
            os.killpg(task, signal.SIGKILL)
        else:
            os.kill(task, signal.SIGKILL)
