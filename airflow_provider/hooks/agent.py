"""The hook that owns a job's agent process: starts it, relays what it says, stops it, and says how
it ended.

The rules that this file keeps:

* one thread, one selector, and a deadline for every wait;
* ``stop`` may run as a signal handler in the middle of anything else here, a log call included. So
  it takes no lock, logs nothing, calls nothing of Airflow, and only writes one line to the agent's
  socket;
* whatever interrupts ``run``, it asks the agent to stop and goes on relaying until the agent has
  ended.

It never imports torch: the agent does, in its own process.
"""

from __future__ import annotations

import logging
import os
import sys
import time
import uuid
from collections.abc import Callable, Mapping
from typing import Any

from airflow.sdk import BaseHook

from airflow_provider.agent_client.environment import (
    agent_environment,
    interpreter_folders,
    shared_paths,
)
from airflow_provider.agent_client.log_relay import LogRelay
from airflow_provider.agent_client.process import AgentSubprocess
from airflow_provider.agent_client.progress_display import (
    ProgressDisplay,
    display_for_this_process,
    lines_in,
)
from airflow_provider.agent_client.session import AgentSession
from llutil.errors import LaunchError, StoppedError
from llutil.system.job_mark import MARK_VARIABLE
from llutil.task_link.messages import Hello, Spec

__all__ = ["AgentHook"]

_HELLO_WITHIN = (
    120.0  # seconds; an agent imports torch before it says hello, which takes long on a cold disk
)
_MARGIN = 40.0  # seconds beyond the grace period: an agent that is stuck ends by force within 30
_REAPED_WITHIN = 10.0  # seconds from SIGKILL; longer only if the kernel cannot let go of it
_DOUBT = 10.0  # seconds without workers, after which it is asked, again and again, whether there is any point
_TICK = 0.5  # seconds: a deadline or a stop that could not be sent at once is noticed this late


class AgentHook(BaseHook):
    """Runs jobs, each through an agent process of its own, one after the other.

    :param python: the agent's interpreter, a path or a name on the ``PATH``; None means this one.
    :param cwd: the agent's working directory; None means the task's.
    :param env: environment variables to add to the task's.
    :param display: where progress is shown; None means what fits this process.
    :param label: is put in front of each line of the log, where several jobs share one.
    :param hello_within: seconds that an agent has to answer at all.
    :param greeted: is called with an agent's first word, before its workers start.
    :param margin: seconds beyond a job's grace period before an agent that should be gone is
        killed.
    :param doubt_after: seconds without workers, after which it is asked, and again after so many,
        whether the job waits in vain.
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
        greeted: Callable[[Hello], None] | None = None,
        margin: float = _MARGIN,
        doubt_after: float = _DOUBT,
    ) -> None:
        super().__init__()
        self._python = python or sys.executable
        self._cwd = cwd
        self._env = env or {}
        self._display = display
        self._label = label
        self._hello_within = hello_within
        self._greeted = greeted
        self._margin = margin
        self._doubt_after = doubt_after
        self._stop: tuple[str, float] | None = None
        self._conversation: AgentSession | None = None
        self.world_size = 0
        """All ranks of the last job's last round, on whatever node."""

    @property
    def stopped(self) -> bool:
        """Whether ``stop`` has been called."""
        return self._stop is not None

    @property
    def running(self) -> bool:
        """Whether an agent has been started and not been seen to its end yet."""
        return self._conversation is not None

    def stop(self, reason: str) -> None:
        """Ask the agent to end its job within its grace period. Safe at any time, also in a signal
        handler.

        Before the agent exists, this keeps it from being started. The first reason counts.
        """
        if self._stop is None:
            self._stop = (reason, time.monotonic())
        conversation = self._conversation
        if conversation is not None:
            conversation.send_stop(self._stop[0])

    def sleep(self, seconds: float) -> None:
        """Wait, but no longer than until ``stop`` is called."""
        # An Event would not do: a signal handler that sets it may have interrupted its very lock.
        until = time.monotonic() + seconds
        while self._stop is None and (left := until - time.monotonic()) > 0:
            time.sleep(min(left, _TICK))

    def run(
        self,
        spec: Spec,
        *,
        results: int | None = None,
        hosting: Callable[[str], None] = lambda _: None,
        in_vain: Callable[[], str | None] = lambda: None,
    ) -> dict[int, Any]:
        """Run one job to its end; what each rank of this node returned, in rank order.

        With ``results``, the descriptor of an empty file, values are in that, and are given as
        ``llutil.task_link.messages.Filed``. ``hosting`` is told where the agent hosts the store of
        its job, if it does; what it raises ends the job. ``in_vain`` is called now and then while
        no worker runs, with nothing else being done meanwhile. If it says why there is no point in
        waiting, the job is stopped for that reason.

        :raises ConfigError: the job, or the interpreter, cannot work as configured.
        :raises StoppedError: ``stop`` was called, and the job ended without success.
        :raises AgentLostError: the agent ended without a verdict, or never answered.
        :raises LaunchError: the job failed, as the error's class says.
        """
        if self._stop is not None:
            raise StoppedError(f"not started: {self._stop[0]}")
        display = self._display or (
            lines_in(self.log) if self._label else display_for_this_process(self.log)
        )
        relay = LogRelay(self.log, display, self._label)
        conversation = AgentSession(self._start(results), relay, spec, hosting)
        self._conversation = conversation
        try:
            try:
                self._relay(conversation, spec.config.shutdown_timeout, in_vain)
            except BaseException as interruption:
                # AirflowTaskTimeout is a BaseException that an alarm raises anywhere in here. The
                # job still has to end, and its last words belong in this log.
                self.stop(f"the task was interrupted by {type(interruption).__name__}")
                conversation.interrupted()
                self._relay(conversation, spec.config.shutdown_timeout)
                # The interruption is what the task fails with, so that the log has to say how the
                # job ended.
                try:
                    self._outcome(conversation)
                except LaunchError as error:
                    relay.say(logging.WARNING, str(error))
                raise
            return self._outcome(conversation)
        finally:
            self._conversation = None
            self.world_size = conversation.world_size
            conversation.close()
            relay.close()

    def _outcome(self, conversation: AgentSession) -> dict[int, Any]:
        try:
            return conversation.outcome(self._stop[0] if self._stop is not None else None)
        except LaunchError as error:
            error.step = max(error.step, conversation.furthest)
            raise

    def _start(self, results: int | None) -> AgentSubprocess:
        paths = shared_paths(sys.path, os.getcwd(), interpreter_folders())  # noqa: PTH109 - a str is wanted
        environment = agent_environment(os.environ, paths, self._env)
        # From its very start: so what is forked from the agent, and from that again, is found by it
        # too.
        environment[MARK_VARIABLE] = uuid.uuid4().hex
        return AgentSubprocess(self._python, self._cwd, environment, results)

    def _relay(
        self,
        conversation: AgentSession,
        grace: float,
        in_vain: Callable[[], str | None] = lambda: None,
    ) -> None:
        """Relay until the agent has ended; kill it when a deadline has passed, and then not wait
        for ever.
        """
        looked = float("-inf")
        hello_due = time.monotonic() + self._hello_within
        leave = grace + self._margin
        give_up = float("inf")
        greeted = self._greeted
        while not conversation.ended and (now := time.monotonic()) < give_up:
            if self._stop is not None:
                conversation.send_stop(self._stop[0])
            elif now > max(conversation.idle_since, looked) + self._doubt_after:
                why = in_vain()
                looked = time.monotonic()
                if why is not None:
                    self.stop(why)
            if give_up != float("inf"):
                why = ""  # it has been killed
            elif self._stop is not None and now > self._stop[1] + leave:
                why = f"{leave:g} s after it was asked to stop ({self._stop[0]})"
            elif now > conversation.leaving_since + leave:
                why = f"{leave:g} s after its last word"
            elif conversation.hello is None and now > hello_due:
                why = f"{self._hello_within:g} s after its start without having said hello"
            else:
                why = ""
            if why:
                give_up = now + _REAPED_WITHIN
                conversation.kill(f"the agent still runs {why}")
            conversation.step(_TICK)
            if greeted is not None and self._stop is None and conversation.hello is not None:
                greeted(conversation.hello)
                greeted = None
