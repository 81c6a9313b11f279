"""A fork server that outlives one launch: ``warm_workers``, for a program that launches again and
again.

A launch with ``start_method="forkserver"`` has a server of its own, which imports torch anew and
ends with it, so that a launch leaves no process behind. Here the caller says for how long there may
be one. This module imports nothing heavy before it is used.
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

if TYPE_CHECKING:
    from llutil.agent.start_methods.forkserver_client import ForkServer

__all__ = ["KeptServer", "kept_server", "warm_workers"]

_kept: ContextVar[KeptServer | None] = ContextVar("llutil_kept_server", default=None)


class KeptServer:
    """The server, the mark that it and its jobs carry, and who uses it: one launch at a time."""

    def __init__(self) -> None:
        from llutil.agent.start_methods.forkserver_client import ForkServer

        self.mark = uuid.uuid4().hex
        self._env = {**os.environ, MARK_VARIABLE: self.mark}
        self._server: ForkServer = ForkServer(self._env)
        self._used = threading.Lock()

    def take(self, environ: Mapping[str, str]) -> ForkServer | None:
        """The server, for one launch whose workers inherit ``environ``; None if it cannot have it.
        To be given back.
        """
        from llutil.agent.worker_side.fork_environment import too_late

        if too_late(self._env, environ) or not self._used.acquire(blocking=False):
            return None
        return self._server

    def give_back(self) -> None:
        """The launch is over, and all its workers have ended."""
        self._used.release()

    def close(self) -> None:
        """End the server."""
        self._server.close()


def kept_server() -> KeptServer | None:
    """The one of the innermost ``warm_workers`` block that the caller is in, if it is in any."""
    return _kept.get()


@contextmanager
def warm_workers() -> Iterator[None]:
    """Keep a process with torch imported for all launches inside this block that have
    ``start_method="forkserver"``.

    It is started at once and imports torch while the caller goes on; it ends with the block, and
    when the caller is killed. A launch whose environment differs in what is read at import (see
    ``llutil.agent.worker_side.fork_environment``), or that begins while another one in the block
    runs, has a server of its own as ever. The thread that enters the block must live as long as the
    block: the kernel ends the server with it.
    """
    server = KeptServer()
    token = _kept.set(server)
    try:
        yield
    finally:
        _kept.reset(token)
        server.close()
