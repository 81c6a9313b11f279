"""``RenewedSession``: what a session knows from its keeper, on any store.

This module may import ``llutil.ledgers.session_keeper`` and ``llutil.ledgers.protocol``.
"""

from __future__ import annotations

from llutil.ledgers.protocol import SessionState
from llutil.ledgers.session_keeper import SessionKeeper

__all__ = ["RenewedSession"]


class RenewedSession:
    """The part of ``llutil.ledgers.Session`` that is the same on all stores: ``keeper`` renews it.

    The properties are those of ``Session``.
    """

    def __init__(self, keeper: SessionKeeper) -> None:
        self._renewals = keeper

    @property
    def ttl(self) -> float:
        """Seconds that the session lives after its last renewal."""
        return self._renewals.renewal.ttl

    @property
    def renewed_at(self) -> float:
        """``time.monotonic()`` when the last successful renewal was sent."""
        return self._renewals.renewal.sent

    @property
    def state(self) -> SessionState:
        """The state now."""
        return self._renewals.state

    @property
    def is_renewed(self) -> bool:
        """Whether the session is still renewed."""
        return self._renewals.is_alive

    def cut_off(self, until: float) -> None:
        """Renew nothing before ``until`` (``time.monotonic()``)."""
        self._renewals.cut_off(until)

    def abandon(self, *, deadline: float) -> None:
        """Stop the renewals without telling the store."""
        self._renewals.stop(deadline=deadline)
