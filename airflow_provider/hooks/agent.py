"""The hook that runs a job in an agent process: starts it, relays its output, and reports its end.

The rules of this file:

* There is one thread and one selector, and every wait has a deadline.
* ``stop`` may run as a signal handler in the middle of anything else here, a log call included. So
  it takes no lock, logs nothing, calls nothing of Airflow, and only writes one line to the agent's
  socket.
* If ``run`` is interrupted, it asks the agent to stop, and goes on relaying until the agent has
  ended.

This module never imports torch: the agent does, in its own process.
"""

from __future__ import annotations

import logging
import os
import random
import sys
import time
import uuid
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import Any

from airflow.sdk import BaseHook

from airflow_provider.agent_client.environment import agent_environment, inherited_paths
from airflow_provider.agent_client.idle_checks import IdleChecks
from airflow_provider.agent_client.job_listener import NOBODY, JobListener
from airflow_provider.agent_client.log_relay import LogRelay
from airflow_provider.agent_client.process import AgentSubprocess
from airflow_provider.agent_client.ready_agents import NO_READY_AGENTS, ReadyAgents
from airflow_provider.agent_client.session import AgentSession
from airflow_provider.parameters.entrypoint import CWD_REMOVED
from llutil.errors import ConfigError, LaunchError, ResultError, StoppedError
from llutil.launcher.os_errors import os_errors_explained
from llutil.progress.display import ProgressDisplay, display_for_this_process
from llutil.progress.log_lines import ProgressLines
from llutil.std import FOLDED
from llutil.system.job_mark import MARK_VARIABLE
from llutil.system.terminal import TERMINAL, terminal_path
from llutil.task_link.messages import Hello, Spec
from llutil.task_link.secrets_file import open_secrets, without_secrets
from llutil.time_budgets import KILLED, StopBudget

__all__ = ["AgentHook"]

# All durations are in seconds.
_HELLO_WITHIN = 120.0
"""The agent's first message must come by then; it first imports torch, maybe from a cold disk."""
_IDLE_CHECK_PERIOD = 10.0
"""The least time between two calls of ``idle_check`` while no worker runs."""
_LONGEST_WAIT = 0.5
"""How long one wait takes at most. A deadline is noticed so late, and a stop that could not be sent
is sent again so late.
"""


class AgentHook(BaseHook):
    """Runs jobs one after the other, each in an agent process of its own.

    :param python: the agent's interpreter, a path or a name on the ``PATH``; None means this one.
    :param cwd: the agent's working directory; None means the task's.
    :param env: environment variables to add to the task's.
    :param display: where progress is shown; None means what suits this process.
    :param label: is put at the start of each line of the log, where several jobs share one.
    :param hello_within: the agent's first message must come within so many seconds.
    :param on_hello: is called with the agent's first message, before its workers start.
    :param patience: seconds after a stop, or after an agent's last message, until an agent that
        should have ended is killed; None means what follows from the job's grace period.
    :param keep_ready: seconds that an agent server may have no agent; 0 means no server.
    :param idle_check_period: while no worker runs, ``idle_check`` is called each time after so many
        seconds, or up to half as many more.
    """

    def __init__(
        self,
        *,
        python: str | None = None,
        cwd: str | None = None,
        env: Mapping[str, str] | None = None,
        display: ProgressDisplay | None = None,
        label: str = "",
        hello_within: float = _HELLO_WITHIN,
        on_hello: Callable[[Hello], None] | None = None,
        patience: float | None = None,
        keep_ready: float = 0.0,
        idle_check_period: float = _IDLE_CHECK_PERIOD,
    ) -> None:
        super().__init__()
        self._python = python or sys.executable
        self._cwd = cwd
        self._env = env or {}
        self._display = display
        self._label = label
        self._hello_within = hello_within
        self._on_hello = on_hello
        self._patience = patience
        self._keep_ready = keep_ready
        self._ready_agents = NO_READY_AGENTS
        self._idle_check_period = idle_check_period
        self._stop: tuple[str, float] | None = None
        self._ended: tuple[LaunchError, float] | None = None
        self._session: AgentSession | None = None
        self.world_size = 0
        """The number of ranks in the last round of the last job, on all nodes."""
        self.ran = False
        """Whether workers of any of its jobs have run."""
        self.returned: Mapping[int, Any] | None = None
        """What each rank returned, once the last job has succeeded; None before."""

    @property
    def stopped(self) -> bool:
        """Whether ``stop`` has been called."""
        return self._stop is not None

    @property
    def running(self) -> bool:
        """Whether an agent was started whose end has not been seen yet."""
        return self._session is not None

    def stop(self, reason: str) -> None:
        """Ask the agent to end its job within its grace period. Safe in signal handlers.

        If no agent exists yet, none is started. Of several reasons the first counts.
        """
        if self._stop is None:
            self._stop = (reason, time.monotonic())
        if (session := self._session) is not None:
            session.send_stop(self._stop[0])

    def sleep(self, seconds: float) -> None:
        """Wait for ``seconds``, or until ``stop`` is called."""
        # Not a threading.Event: a signal handler that sets it may have interrupted the holder of
        # its lock.
        until = time.monotonic() + seconds
        while self._stop is None and (remaining := until - time.monotonic()) > 0:
            time.sleep(min(remaining, _LONGEST_WAIT))

    def run(
        self,
        spec: Spec,
        *,
        results: int | None = None,
        on_ledger: Callable[[str], None] = lambda _: None,
        listener: JobListener = NOBODY,
        idle_check: Callable[[float], str | LaunchError | None] = lambda _: None,
    ) -> dict[int, Any]:
        """Run one job to its end; returns what each rank of this node returned, in rank order.

        ``results`` is the descriptor of an empty file: the values are written to it, and returned
        as ``llutil.task_link.messages.ResultInFile``. ``on_ledger`` is called with the endpoint of
        the job's ledger, if the agent serves it; what it raises ends the job. ``listener`` hears
        what happens to the job, and may steer it. ``idle_check`` is called from time to time while
        no worker runs, with the seconds since when; nothing else is done meanwhile. If it returns a
        text, the job is stopped for that reason, as by ``stop``. If it returns an error, this job
        alone is stopped, and the error is raised.

        :raises ConfigError: the job, or the interpreter, cannot work as configured.
        :raises StoppedError: ``stop`` was called, and the job ended without success.
        :raises AgentLostError: the agent did not report how the job ended, or never answered.
        :raises LaunchError: the job failed; the class says how.
        """
        if self._stop is not None:
            raise StoppedError(f"not started: {self._stop[0]}")
        display = self._display or (
            # Several jobs on one terminal would take turns with its one line.
            ProgressLines(self.log.info) if self._label else display_for_this_process(self.log.info)
        )
        relay = LogRelay(
            self.log,
            display,
            self._label,
            folds=spec.config.log_lines == FOLDED,
            shown=spec.config.local_ranks_filter,
        )
        shown, secrets = without_secrets(spec)
        agent = self._start(results, secrets)
        self._session = session = AgentSession(agent, relay, shown, on_ledger, listener.hear)
        self._ended = self.returned = None
        try:
            listener.begin(session.steer)
            try:
                self._relay(session, listener, spec.config.shutdown_timeout, idle_check)
            except BaseException as interruption:
                # AirflowTaskTimeout is a BaseException that an alarm raises anywhere in here. The
                # job still has to end, and its last output belongs in this log.
                self.stop(f"the task was interrupted by {type(interruption).__name__}")
                session.interrupted()
                self._relay(session, listener, spec.config.shutdown_timeout)
                # The task fails with the interruption, so the log has to say how the job ended.
                try:
                    self._outcome(session)
                    relay.say(logging.WARNING, "the job has succeeded nevertheless")
                except LaunchError as error:
                    relay.say(logging.WARNING, str(error))
                raise
            return self._outcome(session)
        finally:
            self._session = None
            self.world_size = session.job.world_size
            self.ran = self.ran or session.job.world_size > 0
            listener.end()
            session.close()
            relay.close()
            if session.hello is not None and session.hello.torch and not self.stopped:
                self._ready_agents.start_server()

    def _outcome(self, session: AgentSession) -> dict[int, Any]:
        asked = self._asked()
        try:
            try:
                self.returned = returned = session.outcome(None if asked is None else asked[0])
            except StoppedError as error:
                if self._stop is None and self._ended is not None:
                    raise self._ended[0] from error
                raise
        except LaunchError as error:
            error.step = session.job.furthest
            if isinstance(error, ResultError):  # the job has succeeded
                self.returned = error.results
            raise
        return returned

    def _asked(self) -> tuple[str, float] | None:
        """Why and since when the running job is to end; None if it is not."""
        if self._stop is None and self._ended is not None:
            return str(self._ended[0]), self._ended[1]
        return self._stop

    def _start(self, results: int | None, secrets: dict[str, str]) -> AgentSubprocess:
        try:
            python_path, paths = inherited_paths(own_cwd=self._cwd is not None)
        except FileNotFoundError as error:
            raise ConfigError(CWD_REMOVED) from error
        environment = agent_environment(os.environ, python_path, self._env)
        if self._keep_ready:
            own = agent_environment(os.environ, python_path, {})
            self._ready_agents = ReadyAgents(self._python, self._keep_ready, own, self.log)
        # The agent is started with its mark, so that all its forks and their forks have it too.
        environment[MARK_VARIABLE] = uuid.uuid4().hex
        # In dag.test() a person may be there. The standard streams of other tasks are Airflow's.
        if terminal := terminal_path():
            environment[TERMINAL] = terminal
        inherited = {} if results is None else {"--results": results}
        with os_errors_explained(), ExitStack() as stack:
            if secrets:
                inherited["--secrets"] = open_secrets(secrets)
                stack.callback(os.close, inherited["--secrets"])
            started = (self._python, self._cwd, environment, inherited, paths)
            return AgentSubprocess(*started, self._ready_agents)

    def _relay(
        self,
        session: AgentSession,
        listener: JobListener,
        grace_period: float,
        idle_check: Callable[[float], str | LaunchError | None] = lambda _: None,
    ) -> None:
        """Relay until the agent has ended; kill it at its deadline, then wait a limited time."""
        checks = IdleChecks(self._idle_check_period, random.random)
        hello_due = time.monotonic() + self._hello_within
        leave = StopBudget(grace_period).task if self._patience is None else self._patience
        give_up = float("inf")
        on_hello = self._on_hello
        stop_told = False
        while not session.ended and (now := time.monotonic()) < give_up:
            asked = self._asked()
            if asked is not None:
                session.send_stop(asked[0])
                if not stop_told:
                    listener.stop_asked(asked[0])
                    stop_told = True
            elif checks.due(now, session.job.idle_since):
                reason = idle_check(now - session.job.idle_since)
                checks.done(time.monotonic())
                if isinstance(reason, LaunchError):
                    self._ended = (reason, time.monotonic())
                elif reason is not None:
                    self.stop(reason)
            why = ""
            if give_up != float("inf"):
                pass  # it was killed already
            elif asked is not None and now > asked[1] + leave:
                why = f"{leave:g} s after it was asked to stop ({asked[0]})"
            elif now > session.leaving_since + leave:
                why = f"{leave:g} s after its last message"
            elif session.hello is None and now > hello_due:
                why = f"{self._hello_within:g} s after its start without having said hello"
            if why:
                give_up = now + KILLED
                session.kill(f"the agent still runs {why}")
            session.step(_LONGEST_WAIT)
            if on_hello is not None and self._stop is None and session.hello is not None:
                on_hello(session.hello)
                on_hello = None
