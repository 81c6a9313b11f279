"""``LaunchRequest``: all that one call of ``launch_agent`` needs, as a value.

This module may import the standard library and values of the rooms below. It imports no torch.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from llutil.entrypoint import Entrypoint
from llutil.events.events import Events

if TYPE_CHECKING:
    from llutil.agent.observer import AgentObserver
    from llutil.agent.start_methods.server_process import ServerProcess
    from llutil.launcher.config import LaunchConfig

__all__ = ["LaunchRequest"]


def _do_nothing(*_: object) -> None:
    """What is called for a caller that gives nothing else."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LaunchRequest:
    """One call of ``launch_agent``, with what it takes from its process.

    * ``sys_path``: where functions look for modules. ``script_sys_path``: where scripts and modules
      do; empty means their interpreter's own, as for ``python train.py``.
    * ``argv``: the ``sys.argv`` that a function finds.
    * ``default_run_id``: the run id of a job whose ``config`` names none.
    * ``unique_run``: that run id is random, so nobody else knows it or will use it again.
    * ``observer``: hears what happens on this node. None means the terminal.
    * ``result_limit``: None means that results are Python objects. A number means that they are
      plain JSON values of at most so many bytes each; 0 means that they are all None.
    * ``mark``: a text in the environment of every process of the job. If it is empty, one is made.
    * ``before_first_process``: called once, when the agent handles signals itself and before it
      starts a process.
    * ``on_event_page``: called with the job's event page, before the job's first round.
    * ``fork_server``: a fork server that runs already, and the socket to it, for a job with start
      method "forkserver". Its environment is this process's, with the mark.
    * ``store_value``: called with the JSON of each rank's value, if there is a limit. What it
      returns takes the value's place in the result of ``run``. With ``arrays``, a value that holds
      arrays comes as an archive of them.
    * ``kept_folder``: where a value is kept that cannot be handed on; if empty, in the job's folder
      of log files.
    * ``log_level``: from which level on the log records of functions are shown; 0 leaves it to
      Python.
    """

    config: LaunchConfig
    entrypoint: Callable[..., Any] | Entrypoint | str | None
    args: tuple[Any, ...]
    events: Events | None
    sys_path: tuple[str, ...]
    argv: tuple[str, ...] = ("",)
    script_sys_path: tuple[str, ...] = ()
    default_run_id: str = ""
    unique_run: bool = False
    observer: AgentObserver | None = None
    result_limit: int | None = None
    mark: str = ""
    before_first_process: Callable[[], None] = _do_nothing
    on_event_page: Callable[[Events], None] = _do_nothing
    fork_server: tuple[ServerProcess, socket.socket] | None = None
    store_value: Callable[[bytes | bytearray], Any] | None = None
    arrays: bool = False
    kept_folder: str = ""
    log_level: int = 0

    @property
    def run_id(self) -> str:
        """The job's name: ``config.run_id``, else ``default_run_id``."""
        return self.config.run_id or self.default_run_id
