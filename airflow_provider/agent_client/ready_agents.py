"""A task's use of an agent server: an agent from it, if there is one, and one for later tasks.

Nothing here fails a task: what is wrong is a line of its log. This module may import only the
standard library and ``llutil.agent_server``, of which it imports nothing where no server is wanted.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from llutil.agent_server.client import AgentServerPlace, ForkedAgent

__all__ = ["NO_READY_AGENTS", "ReadyAgents"]


class ReadyAgents:
    """Agents of the interpreter ``python`` that a server forks.

    The server stays for ``idle`` seconds without an agent; with 0, there is none, and nothing is
    looked for. ``environment`` is what an agent has of its task's environment.
    """

    def __init__(
        self, python: str, idle: float, environment: Mapping[str, str], log: logging.Logger
    ) -> None:
        self._idle = idle
        self._log = log
        self._place: AgentServerPlace | None = None
        self._absent = False
        if idle > 0:
            from llutil.agent_server.client import AgentServerPlace

            try:
                self._place = AgentServerPlace(python, environment)
            except OSError as error:
                log.warning("no agents are kept ready: %s", error)

    @property
    def may_fork(self) -> bool:
        """Whether there may be a server."""
        return self._place is not None

    def fork(
        self,
        *,
        arguments: Sequence[str],
        env: Mapping[str, str],
        cwd: str | None,
        sys_path: Sequence[str],
        fds: Mapping[int, int],
    ) -> ForkedAgent | None:
        """An agent with these ``arguments``, and each descriptor in ``fds`` at the number before
        it; None if it has to be started afresh.
        """
        from llutil.agent_server.client import NotForkedError
        from llutil.agent_server.order import Order

        assert self._place is not None
        self._absent = False
        order = Order(arguments=arguments, env=env, sys_path=sys_path, places=tuple(fds))
        try:
            agent = self._place.fork(order, cwd, tuple(fds.values()))
        except NotForkedError as reason:
            self._absent = reason.absent
            if not reason.absent:
                self._log.info("the agent starts afresh; the agent server: %s", reason)
            elif problem := self._place.problem():
                self._log.warning("the agent starts afresh; the agent server failed: %s", problem)
            return None
        self._log.info(
            "the agent, process %d, is a fork of the agent server, process %d",
            agent.pid,
            agent.server_pid,
        )
        return agent

    def start_server(self) -> None:
        """Start a server for later tasks, if there was none for this one."""
        if self._place is None or not self._absent:
            return
        try:
            self._place.start_server(self._idle)
        except OSError as error:
            self._log.warning("no agents are kept ready: %s", error)


NO_READY_AGENTS = ReadyAgents("", 0.0, {}, logging.getLogger(__name__))
