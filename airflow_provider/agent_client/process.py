"""The agent's process as its task sees it: it is started, connected, killed and released here.

This module moves bytes and knows nothing of their meaning. It may import only the standard library,
``llutil.errors``, ``llutil.launcher.os_errors``, ``llutil.system``, ``environment``,
``ready_agents`` and ``start_errors``.

What the two processes share:

* a socket pair. It carries commands one way and events the other. While it is open, the other side
  lives;
* two pipes that are the agent's stdout and stderr. The agent also gets a copy of both *read* ends.
  So if the task dies, the agent and its workers can still print: the pipe is not broken.

The agent gets a session of its own. So it survives Airflow's SIGKILL to the task's process group,
for as long as it needs to save and to end the workers. If the task dies, the kernel closes the
socket, and so the agent learns of it.

An agent is a fresh interpreter, or a fork of an agent server where there is one
(``llutil.agent_server``). Neither the task nor the agent can tell, but by the time that it takes.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from collections.abc import Mapping
from contextlib import ExitStack
from typing import Protocol

from airflow_provider.agent_client.environment import TaskPaths
from airflow_provider.agent_client.ready_agents import NO_READY_AGENTS, ReadyAgents
from airflow_provider.agent_client.start_errors import NO_PROCESS, start_error, unwritable
from llutil.errors import InfrastructureError
from llutil.launcher.os_errors import os_errors_explained
from llutil.system.send_signal import send_signal_by_pidfd

__all__ = ["AgentSubprocess"]

_START = (
    "import sys; cwd = [] if sys.flags.safe_path else [sys.path.pop(0)]; "
    "sys.path += sys.argv[sys.argv.index('--path') + 1:] + cwd; "
    "from llutil.__main__ import main; main()"
)
"""``python -m llutil``, but with nothing of the task's, and not the working directory, before the
standard library on ``sys.path``: a ``platform.py`` beside a DAG would be imported by the agent.
"""


class AgentSubprocess:
    """A started agent.

    :param python: the agent's interpreter, a path or a name on the ``PATH``.
    :param cwd: the agent's working directory; None means the task's.
    :param env: the agent's whole environment.
    :param inherited: more descriptors that the agent inherits, by the option that names them to it.
    :param paths: where ranks find modules of the task's.
    :param ready: forks the agent, if it can.

    :raises ConfigError: the interpreter or the working directory cannot be used, or the environment
        is too long or cannot be written in this worker's locale.
    :raises InfrastructureError: this machine cannot start another process now.
    :raises OSError: this machine has no descriptors left. No agent is left then.
    """

    def __init__(
        self,
        python: str,
        cwd: str | None,
        env: Mapping[str, str],
        inherited: Mapping[str, int],
        paths: TaskPaths,
        ready: ReadyAgents = NO_READY_AGENTS,
    ) -> None:
        forked = _forked(ready, cwd, env, inherited, paths)
        self._streams, self._process = forked or _started(python, cwd, env, inherited, paths)
        self.socket = self._streams.socket
        self.pipes = self._streams.pipes
        self.python = python
        self.pid = self._process.pid

    def poll(self) -> int | None:
        """The exit code, negative for a signal; None while the process runs.

        A process that has ended is reaped by this call.
        """
        return self._process.poll()

    def kill(self) -> None:
        """Send SIGKILL to the agent's process group, if the agent has not been reaped yet.

        Workers have sessions of their own: the guardian ends them when the agent is gone.
        """
        if self._process.poll() is None:
            send_signal_by_pidfd(self._process.pidfd, signal.SIGKILL, group=self.pid)

    def close(self) -> None:
        """Close the socket, the pipes and the agent's descriptor. An agent that still runs stops
        its job and ends.
        """
        self._streams.close()
        self._process.close()


class _Process(Protocol):
    """The agent's process, as its task sees it."""

    @property
    def pid(self) -> int:
        """Its number."""

    @property
    def pidfd(self) -> int:
        """A descriptor of it."""

    def poll(self) -> int | None:
        """The exit code, negative for a signal; None while it runs."""

    def close(self) -> None:
        """Give up what the task has of it."""


class _Child:
    """A process that the task has started itself."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process
        self.pid = process.pid
        self.pidfd = os.pidfd_open(process.pid)

    def poll(self) -> int | None:
        """See ``_Process``."""
        return self._process.poll()

    def close(self) -> None:
        """See ``_Process``."""
        if self.pidfd >= 0:
            os.close(self.pidfd)
            self.pidfd = -1
        if self._process.poll() is None:
            # Without an exit code Popen would warn that the child was not reaped. But the agent may
            # outlive this task: it saves during its grace period, and init reaps it.
            self._process.returncode = 0


class _Streams:
    """The task's ends of what connects it with an agent: ``socket``, and ``pipes`` by the name of
    the stream. ``agents`` are the agent's ends, until it is started.
    """

    def __init__(self, on_error: ExitStack, for_agent: ExitStack) -> None:
        self.pipes: dict[str, int] = {}
        self.agents_pipes: dict[str, int] = {}
        self.socket, self.agents_socket = socket.socketpair()
        on_error.callback(self.close)  # it may be called at once: an alarm may raise anywhere
        for_agent.enter_context(self.agents_socket)
        for name in ("stdout", "stderr"):
            self.pipes[name], self.agents_pipes[name] = os.pipe()
            for_agent.callback(os.close, self.agents_pipes[name])
        # The read ends stay blocking: their flags are shared with the agent's copies.
        self.socket.setblocking(False)

    def options(self, inherited: Mapping[str, int]) -> dict[str, int]:
        """The agent's descriptors, by the option that names each."""
        return {
            "--socket": self.agents_socket.fileno(),
            "--stdout-reader": self.pipes["stdout"],
            "--stderr-reader": self.pipes["stderr"],
            **inherited,
        }

    def close(self) -> None:
        """Close the task's ends."""
        self.socket.close()
        while self.pipes:
            os.close(self.pipes.popitem()[1])


def _arguments(options: Mapping[str, int], paths: TaskPaths) -> list[str]:
    """The arguments of an agent."""
    arguments = [text for pair in options.items() for text in map(str, pair)]
    arguments += ["--before-site-packages", str(len(paths.before)), "--path"]
    return [*arguments, *paths.before, *paths.after]


def _forked(
    ready: ReadyAgents,
    cwd: str | None,
    env: Mapping[str, str],
    inherited: Mapping[str, int],
    paths: TaskPaths,
) -> tuple[_Streams, _Process] | None:
    """An agent that is forked, and what connects it; None if there is none."""
    if not ready.may_fork:
        return None
    with ExitStack() as on_error, ExitStack() as for_agent:
        # An order that is given up may still be carried out later. So nothing of it is used again.
        streams = _Streams(on_error, for_agent)
        options = streams.options(inherited)
        agent = ready.fork(
            arguments=_arguments(options, paths),
            env=env,
            cwd=cwd,
            sys_path=(*paths.before, *paths.after),
            fds={
                1: streams.agents_pipes["stdout"],
                2: streams.agents_pipes["stderr"],
                **{fd: fd for fd in options.values()},
            },
        )
        if agent is None:
            return None
        on_error.pop_all()
        return streams, agent


def _started(
    python: str,
    cwd: str | None,
    env: Mapping[str, str],
    inherited: Mapping[str, int],
    paths: TaskPaths,
) -> tuple[_Streams, _Process]:
    """An agent that is a fresh interpreter, and what connects it."""
    with ExitStack() as on_error, ExitStack() as for_agent:
        streams = _Streams(on_error, for_agent)
        options = streams.options(inherited)
        try:
            # If an alarm raises here after the fork, we never learn the new process's pid. It
            # has no job yet, sees its socket close, and ends.
            with os_errors_explained():
                process = subprocess.Popen(
                    [python, "-u", "-c", _START, *_arguments(options, paths)],
                    stdin=subprocess.DEVNULL,
                    stdout=streams.agents_pipes["stdout"],
                    stderr=streams.agents_pipes["stderr"],
                    pass_fds=tuple(options.values()),
                    cwd=cwd,
                    env=dict(env),
                    start_new_session=True,  # and no preexec_fn: it is not safe beside threads
                )
        except InfrastructureError as error:
            raise InfrastructureError(f"{NO_PROCESS}: {error}") from error
        except OSError as error:
            raise start_error(python, cwd, env, error) from error
        except UnicodeEncodeError as error:  # it has the value, which may be a secret
            raise unwritable(env, error) from None
        on_error.callback(process.wait)
        on_error.callback(process.kill)
        child = _Child(process)
        on_error.pop_all()
        return streams, child
