"""The life of the agent process: spec in, one job, its end told.

It starts as a fresh interpreter in a session of its own, so that Airflow's kill of the task's
process group does not reach it: it then has its grace period to let the workers save, and ends
every process of the job. If the main thread should be stuck where no signal reaches it, the link's
thread ends the job by force soon after.

For warm workers the fork server is forked from this very process, so that one import of torch
serves both. That takes a process without threads: then nothing but the main thread runs until the
server is there, and a stop that comes meanwhile starts the link's thread out of a signal handler,
which is the end of that plan and soon of the process.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import logging
import os
import platform
import signal
import socket
import sys
import threading
import time
import traceback
import uuid
from collections.abc import Sequence
from types import FrameType
from typing import TYPE_CHECKING

from llutil.agent_process.agent_record_writer import AgentRecordWriter
from llutil.agent_process.orphan_log import OrphanLog
from llutil.agent_process.prefork import wants_server, warm_server
from llutil.agent_process.task_observer import TaskLogHandler, TaskObserver
from llutil.agent_process.task_socket import TaskSocket
from llutil.errors import LaunchError, StoppedError
from llutil.failure import FailureClass, JobFailure
from llutil.launcher.request import LaunchRequest
from llutil.launcher.run import run
from llutil.system.job_mark import MARK_VARIABLE
from llutil.system.processes import kill_all
from llutil.task_link import messages
from llutil.task_link.results_file import ResultsWriter
from llutil.time_budgets import KILLED, StopBudget

if TYPE_CHECKING:
    from llutil.agent.start_methods.forkserver_client import ServerProcess

__all__ = ["main"]

_SPEC_DEADLINE = 60.0  # seconds; the operator sends it at once
# Seconds for a slow task to read the last words. No part of a stop: the job has ended.
_DELIVERY = 120.0


def main(argv: Sequence[str]) -> int:
    """Serve one job; the exit status is 0 if its end was told, whatever it was."""
    parser = argparse.ArgumentParser(
        prog="python -m llutil",
        description="The agent process of airflow-provider-elastic-launch. The operator starts it; "
        "to launch a job from a program, use llutil.launcher.launch_agent.",
    )
    parser.add_argument(
        "--socket", type=int, required=True, help="descriptor of the socket to the task"
    )
    parser.add_argument(
        "--stdout-reader", type=int, required=True, help="read end of standard output"
    )
    parser.add_argument(
        "--stderr-reader", type=int, required=True, help="read end of standard error"
    )
    parser.add_argument(
        "--results", type=int, help="file that takes what ranks return; else the socket does"
    )
    options = parser.parse_args(argv)
    fds = [options.socket, options.stdout_reader, options.stderr_reader]
    results = None if options.results is None else ResultsWriter(options.results)
    if results is not None:
        fds.append(results.fd)
    for fd in fds:
        try:
            os.set_inheritable(fd, False)
        except OSError:
            parser.error(f"{fd} is not an open descriptor; the operator hands over some that are")
    if not sys.flags.safe_path:
        sys.path.append(
            sys.path.pop(0)
        )  # -m put the working directory before the library: it may shadow it
    return _TaskAgent(socket.socket(fileno=fds[0]), OrphanLog(fds[1:3]), results).serve()


class _TaskAgent:
    """One agent process, between its task and its job."""

    def __init__(
        self, sock: socket.socket, orphan_log: OrphanLog, results: ResultsWriter | None
    ) -> None:
        self._mark = os.environ.get(MARK_VARIABLE) or uuid.uuid4().hex
        self._marked = self._mark == os.environ.get(MARK_VARIABLE)
        """Whether what is forked from here carries the mark, as the kernel shows it: whoever
        started us saw to it.
        """
        self._main = threading.main_thread()
        self._gate = threading.Lock()
        """Guards the next three: a stop comes before the job or to it, and its end is told once."""
        self._reason: str | None = None
        self._begun = False
        self._ended = False
        self._grace_period = 0.0
        self._leaving = AgentRecordWriter(self._mark)
        self._link = TaskSocket(sock, orphan_log, self._on_stop)
        self._results = results
        self._observer = TaskObserver(
            self._link, self._leaving, () if results is None else (results.fd,)
        )

    def serve(self) -> int:
        # Not before all is in place that a stop, which may come at once, needs.
        signal.signal(signal.SIGTERM, self._on_term)
        self._link.send(_hello())
        last: messages.JobSucceeded | messages.JobFailed
        try:
            deadline = time.monotonic() + _SPEC_DEADLINE
            spec = self._link.first_spec(deadline)
            server = self._warm_up(spec) if spec is not None else None
            self._link.start()
            last = self._run(self._link.spec(deadline), server)
        except BaseException as error:  # noqa: BLE001 - the edge of the process: its end must be told
            last = self._failed(error)
        self._tell(last)
        return 0

    def _warm_up(self, spec: messages.Spec) -> tuple[ServerProcess, socket.socket] | None:
        """A fork server, forked from this process; None if the job wants none, or nobody has time
        for it any more.
        """
        if not self._marked or not wants_server(spec.config):
            return None
        with self._link.listening():
            return warm_server(spec.config, os.environ)

    def _run(
        self, spec: messages.Spec, server: tuple[ServerProcess, socket.socket] | None
    ) -> messages.JobSucceeded:
        self._grace_period = spec.config.shutdown_timeout
        handler = TaskLogHandler(self._link)
        own = logging.getLogger("llutil")
        own.addHandler(handler)
        own.setLevel(logging.INFO)
        own.propagate = False
        self._leaving.begin(spec)
        os.register_at_fork(after_in_child=lambda: own.removeHandler(handler))
        request = LaunchRequest(
            config=spec.config,
            entrypoint=spec.entrypoint,
            args=(),
            events=None,
            sys_path=tuple(sys.path),
            observer=self._observer,
            result_limit=spec.result_limit,
            mark=self._mark,
            before_first_process=self._before_first_process,
            fork_server=server,
            store_value=None if self._results is None else self._results.add,
            arrays=spec.arrays and self._results is not None,
        )
        results = run(request)
        for rank, value in results.items():
            # A script returns None, of which there is no JSON.
            filed = self._results is not None and value is not None
            self._link.send(
                messages.ResultInFile(rank, *value) if filed else messages.Result(rank, value)
            )
        return messages.JobSucceeded(tuple(results))

    def _before_first_process(self) -> None:
        """The job hears signals itself from here on, and has not started a process yet."""
        with self._gate:
            self._begun = self._reason is None
        if not self._begun:
            # Another thread is telling the task, and ends this process. If it fails to, no job must
            # begin.
            time.sleep(_DELIVERY + 2 * KILLED)
            os._exit(1)

    def _tell(self, last: messages.JobSucceeded | messages.JobFailed) -> None:
        """Say how the job ended, if nobody has, and deliver all words."""
        with self._gate:
            first, self._ended = not self._ended, True
        if first:
            self._leaving.ended(last)  # before the task can hear of it, which then removes the file
            self._link.send(last)
        self._link.close(time.monotonic() + _DELIVERY)

    def _on_stop(self, reason: str) -> None:
        """On any thread but the main one: see to it that the job ends, or never begins."""
        with self._gate:
            first = self._reason is None
            self._reason = self._reason or reason
            begun = self._begun
        if first:
            end = self._end_by_force if begun else self._end_early
            threading.Thread(target=end, name="llutil-last-resort", daemon=True).start()
        if begun and not self._ended:
            # Sent to the main thread and not to the process: only so does it end a wait inside a
            # system call.
            signal.pthread_kill(self._main.ident or 0, signal.SIGTERM)
        self._leaving.told(reason, task_gone=self._link.gone)

    def _end_early(self) -> None:
        """The main thread may be in the middle of importing torch, which no exception should
        interrupt: leave it.
        """
        self._tell(self._stopped(f"stopped before its workers started: {self._reason}"))
        # By the mark alone, which the guardian does not carry: it is to see to the rest, and to the
        # event page.
        kill_all((), self._mark, time.monotonic() + KILLED)
        os._exit(0)

    def _end_by_force(self) -> None:
        """Only reached if the main thread does not end the job in time: it is stuck where Python
        runs no handler.
        """
        self._main.join(StopBudget(self._grace_period).last_resort)
        if self._ended:
            # The job has ended; what is left is to deliver words, which has a deadline of its own.
            return
        # By the mark alone, which the guardian does not carry: it is to see to the rest, and to the
        # event page.
        kill_all((), self._mark, time.monotonic() + KILLED)
        os._exit(1)

    def _on_term(self, _number: int, _frame: FrameType | None) -> None:
        """While no job runs. A handler may have interrupted anything: it takes no lock, and raises
        nothing.
        """
        if not self._begun:
            reason = "the agent got signal SIGTERM"
            threading.Thread(target=self._on_stop, args=(reason,), daemon=True).start()

    @staticmethod
    def _stopped(text: str) -> messages.JobFailed:
        return _told(StoppedError(text))

    def _failed(self, error: BaseException) -> messages.JobFailed:
        """How ``error`` is told to the task."""
        if isinstance(error, LaunchError):
            return _told(error)
        from torch.distributed.elastic.multiprocessing.api import SignalException

        from llutil.agent.failures.report import WorkersFailed

        match error:
            case WorkersFailed(job_failure=told):
                return messages.JobFailed("WorkersFailedError", str(error), False, told)
            case SignalException(sigval=sigval):
                reason = self._reason or f"the agent got signal {signal.Signals(sigval).name}"
                return self._stopped(f"the job was stopped: {reason}")
            case _:
                text = "".join(traceback.format_exception(error))
                told = JobFailure(why=repr(error), failure_class=FailureClass.INFRASTRUCTURE)
                return messages.JobFailed(type(error).__name__, text, False, told)


def _told(error: LaunchError) -> messages.JobFailed:
    return messages.JobFailed(type(error).__name__, str(error), error.retryable, error.job_failure)


def _hello() -> messages.Hello:
    return messages.Hello(
        os.getpid(),
        sys.executable,
        torch=_installed("torch"),
        python_version=platform.python_version(),
        launcher=_installed("airflow-provider-elastic-launch"),
    )


def _installed(distribution: str) -> str:
    """The version of ``distribution``, found without importing it; "" if it has none."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return ""
