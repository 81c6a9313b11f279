"""``Listener``: what a connection to a served ledger tells its ledger. This module may import the
standard library and ``llutil.ledgers.served.messages``.
"""

from __future__ import annotations

from typing import Protocol

from llutil.ledgers.served.messages import Change

__all__ = ["Listener"]


class Listener(Protocol):
    """What the connection tells, in its own thread."""

    def on_connected(self) -> None:
        """The server has welcomed this client; calls can be posted."""

    def on_new_server(self, why: str) -> None:
        """The server knows nothing of this client any more."""

    def on_changes(self, changes: tuple[Change, ...]) -> None:
        """Watched scopes have changed."""

    def on_gone(self) -> None:
        """The server has gone, or refuses this client: ``gone`` or ``refusal`` has changed."""
