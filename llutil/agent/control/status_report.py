"""Tells the agent's observer what the node does: soon after a change, and now and then.

This module may import only the standard library, msgspec, ``llutil.agent_socket`` and the agent's
loop.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

from msgspec.structs import replace

from llutil.agent.event_loop import EventLoop
from llutil.agent_socket.messages import JobStatus

__all__ = ["StatusReport"]

_log = logging.getLogger(__name__)

PERIOD = 2.0
"""Seconds between two looks whether something has changed."""
SIGN_OF_LIFE = 10.0
"""Seconds after which an unchanged status is told again."""


@dataclass(slots=True)
class _Told:
    at: float = float("-inf")
    what: JobStatus | None = None


class StatusReport:
    """Gives ``status()`` to ``tell``, on the loop's thread, until ``close``."""

    def __init__(
        self,
        status: Callable[[], JobStatus],
        tell: Callable[[JobStatus], None],
        loop: EventLoop,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._status = status
        self._tell = tell
        self._loop = loop
        self._clock = clock
        self._told = _Told()
        self._open, self._asked = True, False
        loop.repeat(PERIOD, self._look)

    def soon(self) -> None:
        """Tell it in the next turn of the loop: what has just begun is known in full then."""
        if not self._asked:
            self._asked = True
            self._loop.call_soon(self._look_soon)

    def close(self) -> None:
        """Tell no more."""
        self._open = False
        self._loop.repeat_no_more()

    def _look_soon(self) -> None:
        self._asked = False
        self._look()

    def _look(self) -> None:
        if not self._open:
            return
        try:
            status, now = self._status(), self._clock()
            # Times pass although nothing happens.
            same = replace(
                status,
                seconds=0.0,
                ranks=tuple(replace(rank, silent=None) for rank in status.ranks),
            )
            if same != self._told.what or now >= self._told.at + SIGN_OF_LIFE:
                self._told = _Told(now, same)
                self._tell(status)
        except Exception:  # noqa: BLE001 - it is logged
            # What people see of a job must never end it.
            _log.exception("this node's status is told no more")
            self.close()
