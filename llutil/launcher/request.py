"""One call of ``launch_agent``, as a value.

This module may import nothing but the standard library and the values of the rooms below; torch is
not among them.
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
    from llutil.agent.start_methods.forkserver_client import ServerProcess
    from llutil.launcher.config import LaunchConfig

__all__ = ["LaunchRequest"]


def _nothing() -> None:
    """What a caller without a ``begin`` of its own does then."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LaunchRequest:
    """One call of ``launch_agent``, with what it takes from its surroundings.

    ``run_id`` names the job, as ``config`` has it or as it was made for a ``config`` that has none.
    ``host`` None means the terminal. ``result_limit`` None means that results are Python objects; a
    number, that they are plain JSON values of at most so many bytes each. ``mark`` is in the
    environment of every process of the job; one is made up if it is empty. ``begin`` is called once
    the job hears signals itself, and before it starts its first process. ``server`` is a fork
    server that is there already, with the socket to it, for a job that uses one; its environment is
    this process's, mark included. ``keep`` takes each value's JSON, if there is a limit, and what
    it gives stands for the value in what ``run`` returns; with ``arrays``, an archive of those that
    have arrays.
    """

    config: LaunchConfig
    entrypoint: Callable[..., Any] | Entrypoint | str | None
    args: tuple[Any, ...]
    events: Events | None
    run_id: str
    sys_path: tuple[str, ...]
    host: AgentObserver | None = None
    result_limit: int | None = None
    mark: str = ""
    begin: Callable[[], None] = _nothing
    server: tuple[ServerProcess, socket.socket] | None = None
    keep: Callable[[bytes], Any] | None = None
    arrays: bool = False
