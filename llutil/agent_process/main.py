"""The agent process of an Airflow task: reads the spec, runs one job, tells the task how it ended.

The process is a fresh interpreter in its own session, so Airflow's kill of the task's process group
does not reach it. It then has its grace period to let the workers save, and ends every process of
the job. If the main thread is stuck where no signal interrupts it, another thread ends the job by
force.

For start method "forkserver" the fork server is forked from this process, so that one import of
torch serves both. Only a process with a single thread may do that. So the thread of the task socket
starts after the fork. If a stop comes before that, a signal handler starts the thread; then no
server is forked, and the process ends soon.
"""

from __future__ import annotations

import _thread
import logging
import os
import signal
import socket
import sys
import threading
import time
import traceback
import uuid
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from types import FrameType
from typing import TYPE_CHECKING, Any, NoReturn

from llutil.agent_process.agent_record_writer import AgentRecordWriter
from llutil.agent_process.arguments import AgentArguments, read_arguments
from llutil.agent_process.installed import check_torch, hello_message
from llutil.agent_process.job_page import JobPage
from llutil.agent_process.last_message import message_for, stopped_message
from llutil.agent_process.orphan_log import OrphanLog
from llutil.agent_process.prefork import prefork_server, should_prefork
from llutil.agent_process.search_path import ranks_path
from llutil.agent_process.task_observer import TaskLogHandler, TaskObserver
from llutil.agent_process.task_process import task_process
from llutil.agent_process.task_socket import TaskSocket
from llutil.errors import ResultError
from llutil.launcher.request import LaunchRequest
from llutil.launcher.run import run
from llutil.std import COMPLETE
from llutil.system.job_mark import MARK_VARIABLE
from llutil.system.kill_all import kill_all
from llutil.system.process_inheritance import adopt_orphans
from llutil.system.signal_names import signals_named
from llutil.task_link import messages
from llutil.task_link.results_file import ResultsWriter
from llutil.task_link.secrets_file import take_secrets
from llutil.time_budgets import KILLED, StopBudget

if TYPE_CHECKING:
    from llutil.agent.start_methods.server_process import ServerProcess
    from llutil.launcher.config import LaunchConfig

__all__ = ["main"]

# Seconds to wait for the spec, which the operator sends at once.
_SPEC_TIMEOUT = 60.0
# Seconds for a slow task to read the last messages. The job has ended by then, so this is no part
# of the time that a stop takes.
_DELIVERY_TIMEOUT = 120.0


def main(argv: Sequence[str]) -> int:
    """Run one job. The exit status is 0 if the task was told how it ended, even if it failed."""
    given = read_arguments(argv)
    # Should the process be killed that workers are started from, what they have left comes here.
    adopt_orphans()
    return _TaskAgent(given).serve()


class _TaskAgent:
    """The agent process of one task."""

    def __init__(self, given: AgentArguments) -> None:
        self._mark = os.environ.get(MARK_VARIABLE) or uuid.uuid4().hex
        self._environment_has_mark = self._mark == os.environ.get(MARK_VARIABLE)
        """Whether this process was started with the mark in its environment, and so forked children
        show it in /proc too.
        """
        self._main_thread = threading.main_thread()
        self._lock = threading.Lock()
        """Guards the next three. So a stop comes either before the job or during it, and the task
        is told the end once.
        """
        self._stop_reason: str | None = None
        self._job_begun = False
        self._end_told = False
        self._grace_period = 0.0
        sock = socket.socket(fileno=given.socket)
        self._record_writer = AgentRecordWriter(self._mark, task_process(sock))
        orphan_log = OrphanLog((given.stdout_reader, given.stderr_reader))
        self._page = JobPage()
        self._task_socket = TaskSocket(sock, orphan_log, self._on_stop, self._page.steer)
        self._results = None if given.results is None else ResultsWriter(given.results)
        self._secrets = given.secrets
        self._ranks_path = ranks_path(sys.path, given.paths[: given.before_site_packages])
        own = () if self._results is None else (self._results.fd,)
        self._observer = TaskObserver(self._task_socket, self._record_writer, own)

    def serve(self) -> int:
        # Last: a signal may come at once, and its handler needs all that ``__init__`` made.
        signal.signal(signal.SIGTERM, self._on_term)
        self._task_socket.send(hello_message())
        last: messages.JobSucceeded | messages.JobFailed
        try:
            check_torch()
            deadline = time.monotonic() + _SPEC_TIMEOUT
            spec = self._task_socket.first_spec(deadline)
            server = self._prefork_server(spec) if spec is not None else None
            self._task_socket.start()
            last = self._run(self._task_socket.spec(deadline), server)
        except BaseException as error:  # noqa: BLE001 - the edge of the process
            last = message_for(error, self._stop_reason)
        self._tell_end(last)
        return 0

    def _prefork_server(self, spec: messages.Spec) -> tuple[ServerProcess, socket.socket] | None:
        """A fork server, forked from this process; None if the job uses none, or a second thread
        has started.
        """
        if not self._environment_has_mark or not should_prefork(spec.config):
            return None
        with self._task_socket.started_by_input():
            return prefork_server(spec.config, os.environ)

    def _run(
        self, spec: messages.Spec, server: tuple[ServerProcess, socket.socket] | None
    ) -> messages.JobSucceeded:
        self._grace_period = spec.config.shutdown_timeout
        self._handle_further_signals(spec.config)
        self._observer.sends_prefixes = bool(spec.config.log_line_prefix_template)
        self._observer.leaves_out = spec.config.log_lines != COMPLETE
        handler = TaskLogHandler(self._task_socket)
        own = logging.getLogger("llutil")
        own.addHandler(handler)
        own.setLevel(logging.INFO)
        own.propagate = False
        self._record_writer.job_begins(spec)
        os.register_at_fork(after_in_child=lambda: own.removeHandler(handler))
        # After the fork: a fork server, and so every rank, would have the secrets in its memory.
        config = spec.config if self._secrets is None else take_secrets(spec.config, self._secrets)
        if config.start_method == "fork":
            # A rank forked from this process would have the secrets too. The fork server has not.
            config = replace(config, start_method="forkserver")
        names = config.signals_to_handle
        if signal.SIGTERM not in signals_named(names):  # with it a task ends its agent's job
            names = f"SIGTERM,{names}"
        request = LaunchRequest(
            config=replace(config, signals_to_handle=names),
            entrypoint=spec.entrypoint,
            args=(),
            events=None,
            on_event_page=self._page.opened,
            # This process's own arguments are nobody's business, and Airflow's would make every
            # ``argparse`` fail. With the name alone, a parser in the function takes its defaults.
            argv=(spec.entrypoint.name,),
            sys_path=self._ranks_path,
            script_sys_path=self._ranks_path,
            observer=self._observer,
            result_limit=spec.result_limit,
            mark=self._mark,
            before_first_process=self._begin_job,
            fork_server=server,
            store_value=None if self._results is None else self._results.add,
            arrays=spec.arrays and self._results is not None,
            kept_folder=spec.kept_folder,
            log_level=spec.log_level,
        )
        try:
            results = run(request)
        except ResultError as error:
            self._send_results(error.results)
            raise
        self._send_results(results)
        return messages.JobSucceeded(tuple(results))

    def _send_results(self, results: Mapping[int, Any]) -> None:
        for rank, value in results.items():
            # The value of a script is None and is not in the file.
            in_file = self._results is not None and value is not None
            self._task_socket.send(
                messages.ResultInFile(rank, *value) if in_file else messages.Result(rank, value)
            )

    def _handle_further_signals(self, config: LaunchConfig) -> None:
        """Let the other signals that are to be handled stop a job that has not begun, too."""
        with suppress(ValueError):  # checked later
            for number in signals_named(config.signals_to_handle):
                if signal.getsignal(number) is not signal.SIG_IGN:
                    signal.signal(number, self._on_term)

    def _begin_job(self) -> None:
        """From now on the job handles signals itself. It has not started a process yet."""
        with self._lock:
            self._job_begun = self._stop_reason is None
        if not self._job_begun:
            # A stop came first: another thread tells the task, and ends this process. If that
            # thread fails, this one ends the process, so that no job begins.
            time.sleep(_DELIVERY_TIMEOUT + 2 * KILLED)
            os._exit(1)

    def _tell_end(self, last: messages.JobSucceeded | messages.JobFailed) -> None:
        """Tell the task how the job ended, unless that was done; deliver all messages."""
        with self._lock:
            first, self._end_told = not self._end_told, True
        if first:
            # Before the message: the task removes the record's file when it has read the message.
            self._record_writer.ended(last)
            self._task_socket.send(last)
        self._task_socket.close(time.monotonic() + _DELIVERY_TIMEOUT)

    def _on_stop(self, reason: str) -> None:
        """A stop was asked: end the job, or keep it from beginning. Never called on the main
        thread.
        """
        with self._lock:
            first = self._stop_reason is None
            self._stop_reason = self._stop_reason or reason
            begun = self._job_begun
        if first:
            end = self._end_by_force if begun else self._end_early
            threading.Thread(target=end, name="llutil-last-resort", daemon=True).start()
        if begun and not self._end_told:
            # Sent to the main thread, not to the process: only then does the signal interrupt a
            # system call of that thread.
            signal.pthread_kill(self._main_thread.ident or 0, signal.SIGTERM)
        self._record_writer.stop_asked(reason, task_gone=self._task_socket.task_gone)

    def _end_early(self) -> None:
        """End the process before the job begins. The main thread may be importing torch, which an
        exception should not interrupt, so this thread does it.
        """
        status = 1
        try:
            self._tell_end(
                stopped_message(f"stopped before its workers started: {self._stop_reason}")
            )
            status = 0
        finally:
            self._kill_job_and_exit(status)

    def _end_by_force(self) -> None:
        """Wait for the main thread to end the job. If it does not in time, it is stuck where Python
        runs no signal handler: end the job without it.
        """
        self._main_thread.join(StopBudget(self._grace_period).last_resort)
        if self._end_told:
            # The job has ended. Messages are still being delivered, with a deadline of their own.
            return
        self._kill_job_and_exit(1)

    def _kill_job_and_exit(self, status: int) -> NoReturn:
        """Kill what carries the mark, and end this process, whatever happens. The guardian sees to
        the rest, and to the event page.
        """
        try:
            left = kill_all({}, self._mark, time.monotonic() + KILLED)
            if left:
                sys.stderr.write(f"the job has ended, but not all of its processes: {left}\n")
        except BaseException:  # noqa: BLE001 - the edge of the process
            traceback.print_exc()
        finally:
            os._exit(status)

    def _on_term(self, number: int, _frame: FrameType | None) -> None:
        """Handle a signal while no job runs. A signal handler may interrupt any line, so this one
        takes no lock and raises nothing.
        """
        if not self._job_begun:
            reason = f"the agent got signal {signal.Signals(number).name}"
            # Thread.start takes a lock of Python's, which the main thread may hold.
            _thread.start_new_thread(self._on_stop, (reason,))
