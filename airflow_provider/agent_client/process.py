"""The agent's process as its task sees it: it is started, connected, killed and released here.

This module moves bytes and knows nothing of their meaning. It may import only the standard library,
``llutil.errors``, ``llutil.system`` and ``environment``.

What the two processes share:

* a socket pair. It carries commands one way and events the other. While it is open, the other side
  lives;
* two pipes that are the agent's stdout and stderr. The agent also gets a copy of both *read* ends.
  So if the task dies, the agent and its workers can still print: the pipe is not broken.

The agent gets a session of its own. So it survives Airflow's SIGKILL to the task's process group,
for as long as it needs to save and to end the workers. If the task dies, the kernel closes the
socket, and so the agent learns of it.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

from airflow_provider.agent_client.environment import TaskPaths
from llutil.errors import ConfigError
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

    :raises ConfigError: the interpreter or the working directory cannot be used.
    :raises OSError: this machine has no descriptors left. No agent is left then.
    """

    def __init__(
        self,
        python: str,
        cwd: str | None,
        env: Mapping[str, str],
        inherited: Mapping[str, int],
        paths: TaskPaths,
    ) -> None:
        with ExitStack() as on_error, ExitStack() as for_agent:
            self.socket, agents_socket = socket.socketpair()
            on_error.enter_context(self.socket)
            for_agent.enter_context(agents_socket)
            self.pipes: dict[str, int] = {}
            agents_pipes: dict[str, int] = {}
            for name in ("stdout", "stderr"):
                self.pipes[name], agents_pipes[name] = os.pipe()
                on_error.callback(os.close, self.pipes[name])
                for_agent.callback(os.close, agents_pipes[name])
            # The read ends stay blocking: their flags are shared with the agent's copies.
            self.socket.setblocking(False)
            options = {
                "--socket": agents_socket.fileno(),
                "--stdout-reader": self.pipes["stdout"],
                "--stderr-reader": self.pipes["stderr"],
                **inherited,
            }
            arguments = [text for pair in options.items() for text in map(str, pair)]
            arguments += ["--before-site-packages", str(len(paths.before)), "--path"]
            try:
                # If an alarm raises here after the fork, we never learn the new process's pid. It
                # has no job yet, sees its socket close, and ends.
                self._process = subprocess.Popen(
                    [python, "-u", "-c", _START, *arguments, *paths.before, *paths.after],
                    stdin=subprocess.DEVNULL,
                    stdout=agents_pipes["stdout"],
                    stderr=agents_pipes["stderr"],
                    pass_fds=tuple(options.values()),
                    cwd=cwd,
                    env=dict(env),
                    start_new_session=True,  # and no preexec_fn: it is not safe beside threads
                )
            except OSError as error:
                raise ConfigError(_start_problem(python, cwd, error)) from error
            on_error.callback(self._process.wait)
            on_error.callback(self._process.kill)
            self._pidfd = os.pidfd_open(self._process.pid)
            on_error.pop_all()
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
            send_signal_by_pidfd(self._pidfd, signal.SIGKILL, group=self.pid)

    def close(self) -> None:
        """Close the socket, the pipes and the agent's descriptor. An agent that still runs stops
        its job and ends.
        """
        self.socket.close()
        while self.pipes:
            os.close(self.pipes.popitem()[1])
        if self._pidfd >= 0:
            os.close(self._pidfd)
            self._pidfd = -1
        if self._process.poll() is None:
            # Without an exit code Popen would warn that the child was not reaped. But the agent may
            # outlive this task: it saves during its grace period, and init reaps it.
            self._process.returncode = 0


def _start_problem(python: str, cwd: str | None, error: OSError) -> str:
    if cwd is not None and not Path(cwd).is_dir():
        return f"cwd {cwd!r} is not a folder on this worker"
    return (
        f"python {python!r} cannot be started on this worker ({error.strerror}): "
        "wanted an interpreter that has airflow-provider-elastic-launch[torch]"
    )
