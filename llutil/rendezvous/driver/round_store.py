"""The TCPStore of a round: hosted by the round's leader, used by everybody's workers.

Bound on a port that the kernel chose before anybody hears of it, and new for every round, so that
no key of an earlier one is ever met. This module imports torch.
"""

from __future__ import annotations

from datetime import timedelta

from torch.distributed import DistError, TCPStore

from llutil.errors import RendezvousError

__all__ = ["RoundStore", "connect"]

_BIND = timedelta(
    seconds=30
)  # torch's host is its own first client; a wrong address must not cost 300 s


class RoundStore:
    """A store that serves until ``close``. ``host`` is the address that others are told.

    :raises RendezvousError: this node cannot be reached under its own address.
    """

    def __init__(self, host: str) -> None:
        try:
            store = TCPStore(host, 0, is_master=True, wait_for_workers=False, timeout=_BIND)
        except DistError as error:
            raise RendezvousError(
                f"this node cannot serve a TCPStore at its own address {host!r}: {error}; give "
                "local_addr an "
                "address that leads to this node"
            ) from error
        self._server: TCPStore | None = store
        self.host = host
        self.port: int = store.port

    def close(self) -> None:
        """Stop serving; torch closes the port when the last reference goes."""
        self._server = None


def connect(host: str, port: int, seconds: float) -> TCPStore:
    """A client of the store at ``host``.

    :raises DistNetworkError: (torch's) nobody answered within so many ``seconds``.
    """
    patience = timedelta(seconds=seconds)
    return TCPStore(host, port, is_master=False, wait_for_workers=False, timeout=patience)
