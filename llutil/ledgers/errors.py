"""The errors of ledgers, and what each says about trying again.

::

    RendezvousError                  (llutil.errors)
    └── LedgerError
        ├── LedgerUnavailable        no usable answer by the deadline: trying again later can help
        ├── SessionLost              the store says that the session is over: come back as a new node
        ├── LeaseGone                the store says that a lease, and what hung on it, is over
        ├── LedgerRefused            credentials, permission, certificate, protocol: the same again cannot help
        ├── LedgerConflict      a key holds what another wrote, where only our own could be
        └── LedgerClosed             used after close(), or in a process forked from the one that opened it

This module may import nothing but ``llutil.errors``.
"""

from __future__ import annotations

from llutil.errors import RendezvousError
from llutil.failure import FailureClass

__all__ = [
    "LeaseGone",
    "LedgerClosed",
    "LedgerConflict",
    "LedgerError",
    "LedgerRefused",
    "LedgerUnavailable",
    "SessionLost",
]


class LedgerError(RendezvousError):
    """The store that nodes agree through failed them."""


class LedgerUnavailable(LedgerError):
    """No usable answer came by the deadline. A write may have been applied, or be applied yet."""


class SessionLost(LedgerError):
    """The store says that this session is over."""


class LeaseGone(LedgerError):
    """The store says that this lease is over, and with it the records that hung on it."""


class LedgerRefused(LedgerError):
    """The store, or this side, will not have it; the same again cannot help."""

    failure_class = FailureClass.BAD_CONFIGURATION
    retryable = False


class LedgerConflict(LedgerError):
    """A key holds what somebody else wrote."""

    retryable = False


class LedgerClosed(LedgerError):
    """The ledger was closed, or belongs to the process that this one was forked from."""

    retryable = False
