"""``launch_agent``: run a function, script, module or command on every rank of a job, and return
what the ranks of this node returned.

``LaunchConfig`` says how the job runs. ``elastic_launch`` does the same in two calls, as torch's
class of that name does. Importing this module imports no torch; launching does.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from llutil.errors import ConfigError
from llutil.launcher.config import LaunchConfig

if TYPE_CHECKING:
    from llutil.events.events import Events

__all__ = ["LaunchConfig", "elastic_launch", "launch_agent"]


class elastic_launch:  # noqa: N801 - torch's name for it
    """``elastic_launch(config, entrypoint)(*args)`` is ``launch_agent(config, entrypoint,
    list(args))``.
    """

    def __init__(
        self,
        config: LaunchConfig,
        entrypoint: Callable[..., Any] | str | None,
        ice_events: Events | None = None,
    ) -> None:
        self._config = config
        self._entrypoint = entrypoint
        self._events = ice_events

    def __call__(self, *args: Any) -> dict[int, Any]:
        """Launch with ``args``; see ``launch_agent``."""
        return launch_agent(self._config, self._entrypoint, list(args), self._events)


def launch_agent(
    config: LaunchConfig,
    entrypoint: Callable[..., Any] | str | None,
    args: list[Any],
    ice_events: Events | None = None,
) -> dict[int, Any]:
    """Run ``entrypoint`` with ``args`` on every rank, and return what this node's ranks returned.

    ``entrypoint`` is a function of any kind, ``"package.module:function"``, the path of a Python
    script, ``"-m module"``, or a command. Functions get ``args`` by position; the others as
    command-line arguments. ``ice_events`` is the page that the workers share with the caller; one
    is made if it is left out.

    In an argument that is a text, ``${local_rank}`` is replaced by the rank's number on its node. A
    function finds this process's ``sys.argv``, and each rank's interpreter has the flags of this
    one. A rank that is the only one of its node has this process's standard input.

    Returns ``{rank: value}`` in rank order; scripts, modules and commands have the value None.

    :raises ConfigError: the configuration or the entrypoint cannot work; every problem found is
        listed.
    :raises ChildFailedError: (torch's) a rank failed and no restart was left; the text is the
        report.
    :raises ResultError: the job has succeeded, but a value cannot be pickled, or not unpickled
        here. The text says where it is kept; ``results`` are the values of the other ranks.
    :raises RendezvousTimeoutError: too few nodes came in time.
    :raises RendezvousError: the nodes lost the store that they meet through.
    :raises SignalException: (torch's) a signal asked the job to stop; it has been stopped.
    """
    # Imported here: a DAG file or a worker that needs only ``LaunchConfig`` should not pay for it.
    from llutil.launcher.request import LaunchRequest
    from llutil.launcher.run import run
    from llutil.launcher.run_id import deduce_run_id, is_named_by

    if not isinstance(args, list | tuple):
        raise ConfigError(f"args is {args!r}; wanted a list of arguments")
    request = LaunchRequest(
        config=config,
        entrypoint=entrypoint,
        args=tuple(args),
        events=ice_events,
        default_run_id="" if config.run_id else deduce_run_id(os.environ),
        unique_run=not (config.run_id or is_named_by(os.environ)),
        sys_path=tuple(sys.path),
        argv=tuple(map(str, sys.argv)),
    )
    return run(request)
