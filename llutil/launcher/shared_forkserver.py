"""``warm_workers``: a fork server that several launches of one program share.

Usually each launch with ``start_method="forkserver"`` starts its own fork server, which imports
torch again and ends with the launch. So a launch leaves no process behind. Here the caller keeps
one server for the time of a ``with`` block, with as many workers forked ahead as the last launch
had, and one guardian. This module imports the server's code only when it is
needed.
"""

from __future__ import annotations

import os
import threading
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

from llutil.system.job_mark import MARK_VARIABLE
from llutil.system.standard_fds import open_standard_fds

if TYPE_CHECKING:
    from llutil.agent.event_loop import EventLoop
    from llutil.agent.guardian.client import Guardian
    from llutil.agent.start_methods.forkserver_client import ForkServer

__all__ = ["SharedForkServer", "shared_fork_server", "warm_workers"]

_shared_server: ContextVar[SharedForkServer | None] = ContextVar("llutil_kept_server", default=None)


class SharedForkServer:
    """A fork server, and the mark that the server and its jobs carry. One launch at a time has it,
    with a guardian.
    """

    def __init__(self) -> None:
        from llutil.agent.start_methods.forkserver_client import ForkServer

        open_standard_fds()  # first: the server would get the number of a closed one
        self.mark = uuid.uuid4().hex
        self._pid = os.getpid()
        self._env = {**os.environ, MARK_VARIABLE: self.mark}
        self._server: ForkServer = ForkServer(self._env)
        self._guardian: Guardian | None = None
        self._used = threading.Lock()

    def take(self, environ: Mapping[str, str]) -> ForkServer | None:
        """Take the server for one launch, whose workers inherit ``environ``; ``give_back`` ends
        that.

        None if another launch has it, or if its workers could not get all of ``environ``. None also
        in a fork of the process that made it: a round that ends there would end what carries the
        mark, and so the workers of this process.
        """
        from llutil.agent.worker_side.fork_environment import unsettable_after_fork

        if os.getpid() != self._pid or unsettable_after_fork(self._env, environ):
            return None
        if not self._used.acquire(blocking=False):
            return None
        return self._server

    def guardian(self, loop: EventLoop) -> Guardian:
        """The guardian of the launch that has the server; ``keep`` ends that. It is kept, as the
        server is.

        :raises OSError: none can be started.
        """
        from llutil.agent.guardian.client import Guardian

        if self._guardian is None:
            self._guardian = Guardian(self.mark, loop)
        else:
            self._guardian.take_up(loop)
        return self._guardian

    def give_back(self, count: int) -> None:
        """The launch is over, and all its ``count`` workers have ended. The next may need so
        many again.
        """
        self._server.prepare(count)
        self._used.release()

    def close(self) -> None:
        """End the server, and the guardian. They are not those of a fork."""
        if os.getpid() != self._pid:
            return
        self._server.close()
        if self._guardian is not None:
            self._guardian.close()


def shared_fork_server() -> SharedForkServer | None:
    """The server of the innermost ``warm_workers`` block around the caller; None outside of one."""
    return _shared_server.get()


@contextmanager
def warm_workers() -> Iterator[None]:
    """Keep one fork server, with torch imported, for all launches inside this block that have
    ``start_method="forkserver"``.

    The server starts at once and imports torch while the caller goes on. It ends with the block,
    and when the caller is killed. After a launch, it forks as many workers ahead as that one had;
    they wait, without any code of yours, for the next.

    A launch starts its own server, as it would outside the block, if another launch uses the shared
    one, if it runs in a fork of this process, or if its environment differs in variables that are
    read at import (see ``llutil.agent.worker_side.fork_environment``).
    """
    server = SharedForkServer()
    token = _shared_server.set(server)
    try:
        yield
    finally:
        _shared_server.reset(token)
        server.close()
