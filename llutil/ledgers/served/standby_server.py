"""``StandbyServer``: serves the ledger as soon as its port is free, until the node is in a round.

An agent that finds the port taken is a client of whoever has it. If that one was just about to end,
nobody would serve: so the agent tries again until its first round begins. From then on the job has
a server, and one that is lost is replaced by whoever is started in its place.

This module may import the standard library, the server of this folder, and its base class.
"""

from __future__ import annotations

import errno
import logging
import threading
from collections.abc import Callable

from llutil.ledgers.served.job_server import JobServer
from llutil.ledgers.served.server import LedgerServer

__all__ = ["StandbyServer"]

_log = logging.getLogger(__name__)

# Seconds between two tries. The kernel tells nobody when a port becomes free.
_PERIOD = 0.25
# Seconds for one try at most.
_TRIED = 5.0


class StandbyServer(JobServer):
    """Calls ``start`` again while its port is taken. ``place`` is told to people."""

    def __init__(self, start: Callable[[], LedgerServer], place: str) -> None:
        self._start = start
        self._place = place
        self._server: LedgerServer | None = None
        self._settled = threading.Event()
        self._thread = threading.Thread(target=self._run, name="llutil-standby", daemon=True)
        self._thread.start()

    def settle(self) -> None:
        """Try no more. A server that has begun goes on."""
        self._settled.set()
        self._thread.join(_TRIED)

    def close(self, *, goodbye: str = "", linger: float = 0.0) -> None:
        """Try no more, and stop serving: see ``LedgerServer.close``."""
        self.settle()
        if self._server is not None:
            self._server.close(goodbye=goodbye, linger=linger)

    def fds(self) -> set[int]:
        """What a forked child must not keep. It tries no more: a later socket would be kept."""
        self.settle()
        return self._server.fds() if self._server is not None else set()

    def _run(self) -> None:
        while not self._settled.wait(_PERIOD):
            try:
                self._server = self._start()
            except OSError as error:
                if error.errno == errno.EADDRINUSE:
                    continue
                _log.warning(
                    "this node cannot serve the job's ledger at %s: %s", self._place, error
                )
                return
            _log.info("this node serves the job's ledger at %s from now on", self._place)
            return
