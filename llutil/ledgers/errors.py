"""The errors of ledgers, and what each says about a retry.

::

    RendezvousError                  (llutil.errors)
    └── LedgerError
        ├── LedgerUnavailable        no usable answer by the deadline: a later retry can help
        │   └── LedgerGone           the store has gone for good: a retry cannot help
        ├── SessionLost              the store says that the session is over: join as a new node
        ├── LeaseGone                the store says that a lease is over, and its records with it
        ├── LedgerRefused            credentials, permission, certificate: a retry cannot help
        ├── LedgerConflict           a key that only we may write holds a value of somebody else
        └── LedgerClosed             used after close(), or in a process forked from its owner

This module may import ``llutil.errors`` and ``llutil.failure``, and nothing else.
"""

from __future__ import annotations

from llutil.errors import RendezvousError
from llutil.failure import FailureClass

__all__ = [
    "LeaseGone",
    "LedgerClosed",
    "LedgerConflict",
    "LedgerError",
    "LedgerGone",
    "LedgerRefused",
    "LedgerUnavailable",
    "SessionLost",
]


class LedgerError(RendezvousError):
    """The store that nodes agree through did not do what was asked."""


class LedgerUnavailable(LedgerError):
    """No usable answer came by the deadline. A write may have been applied, or may still be."""


class LedgerGone(LedgerUnavailable):
    """The store has gone for good; no later call will be answered."""

    retryable = False


class SessionLost(LedgerError):
    """The store says that this session is over."""


class LeaseGone(LedgerError):
    """The store says that this lease is over, and with it the records that belonged to it."""


class LedgerRefused(LedgerError):
    """The store, or this process, refuses the request. A retry cannot help.

    What to do: correct user, password, certificate or rights, as the text says.
    """

    default_class = FailureClass.BAD_CONFIGURATION
    retryable = False


class LedgerConflict(LedgerError):
    """A key holds what somebody else wrote."""

    retryable = False


class LedgerClosed(LedgerError):
    """The ledger was closed, or belongs to the process that this one was forked from."""

    retryable = False
