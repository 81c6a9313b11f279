"""What belongs to the process that opened it: ``ProcessOwned``, the part that connections to all
stores have in common.

Threads and sockets of a client do not survive a fork, and a child that used them would disturb its
parent. So a connection knows its process, refuses itself to every other one, and says what to do
there; likewise once it is closed.

This module may import nothing but the standard library and ``llutil.ledgers.errors``. It does no
I/O.
"""

from __future__ import annotations

import os
import threading

from llutil.ledgers.errors import LedgerClosed

__all__ = ["ProcessOwned"]


class ProcessOwned:
    """Something of the ledger at ``store`` (which is shown in errors) that this process has
    opened.
    """

    def __init__(self, store: object) -> None:
        self.closing = threading.Event()
        """Set once it is closed, or about to be; its users' waits end with it."""
        self._store = store
        self._pid = os.getpid()

    @property
    def inherited(self) -> bool:
        """Whether this is a child that was forked from the process that opened it."""
        return self._pid != os.getpid()

    def check(self) -> None:
        """:raises LedgerClosed: it was closed, or this is a child that was forked from its
        process.
        """
        if self.inherited:
            raise LedgerClosed(
                f"this ledger on {self._store} was opened by process {self._pid} and cannot be used in "
                f"process {os.getpid()}, which was forked from it; open another one there"
            )
        if self.closing.is_set():
            raise LedgerClosed(f"this ledger on {self._store} is closed")
