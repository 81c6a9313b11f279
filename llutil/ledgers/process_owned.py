"""``ProcessOwned``: an object that only the process that opened it may use. The connections to all
stores derive from it.

A client's threads and sockets do not survive a fork, and a child that used them would disturb its
parent. So a connection remembers its process, and refuses to work in every other one. It also
refuses once it is closed. The error says what to do.

This module may import the standard library and ``llutil.ledgers.errors``, and nothing else. It does
no I/O.
"""

from __future__ import annotations

import os
import threading

from llutil.ledgers.errors import LedgerClosed

__all__ = ["ProcessOwned"]


class ProcessOwned:
    """A part of the ledger at ``store``, opened by this process. ``store`` is shown in errors."""

    def __init__(self, store: object) -> None:
        self.closing = threading.Event()
        """Set when it is closed, or about to be. The waits of its users end then."""
        self._store = store
        self._pid = os.getpid()

    @property
    def inherited(self) -> bool:
        """Whether this process is a child, forked from the process that opened it."""
        return self._pid != os.getpid()

    def check(self) -> None:
        """:raises LedgerClosed: it was closed, or this process was forked from the one that
        opened it.
        """
        if self.inherited:
            raise LedgerClosed(
                f"this ledger on {self._store} was opened by process {self._pid} and cannot be "
                f"used in process {os.getpid()}, which was forked from it; open another one there"
            )
        if self.closing.is_set():
            raise LedgerClosed(f"this ledger on {self._store} is closed")
