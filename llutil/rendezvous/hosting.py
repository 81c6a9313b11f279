"""The TCPStore of a round: hosted by the round's leader, used by everybody's workers.

Bound on a port that the kernel chose before anybody hears of it, and new for every round, so that no key of an
earlier one is ever met. This module imports torch.
"""

from __future__ import annotations

from datetime import timedelta

from torch.distributed import TCPStore

__all__ = ["HostedStore", "connect"]

_CONNECT = timedelta(seconds=60)


class HostedStore:
    """A store that serves until ``close``. ``host`` is the address that others are told."""

    def __init__(self, host: str) -> None:
        self._server: TCPStore | None = TCPStore(host, 0, is_master=True, wait_for_workers=False)
        self.host = host
        self.port: int = self._server.port

    def close(self) -> None:
        """Stop serving; torch closes the port when the last reference goes."""
        self._server = None


def connect(host: str, port: int) -> TCPStore:
    """A client of the store at ``host``.

    :raises DistNetworkError: (torch's) nobody answered within a minute.
    """
    return TCPStore(host, port, is_master=False, wait_for_workers=False, timeout=_CONNECT)
