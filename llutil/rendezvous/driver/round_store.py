"""The TCPStore of a round: the round's leader hosts it, the workers of all nodes use it.

It is bound to a port that the kernel chooses before its address is published. Every round has a new
one, so that no worker finds a key of an earlier round. This module imports torch.
"""

from __future__ import annotations

from datetime import timedelta

from torch.distributed import DistError, TCPStore

from llutil.errors import RendezvousError

__all__ = ["RoundStore", "connect_to_store"]

_BIND_TIMEOUT = timedelta(seconds=30)
"""A TCPStore that is a host first connects to itself. With torch's default, a wrong address would
cost 300 s.
"""


class RoundStore:
    """A store that serves until ``close``. ``host`` is the address that others are told.

    :raises RendezvousError: this node cannot be reached under its own address.
    """

    def __init__(self, host: str) -> None:
        try:
            store = TCPStore(host, 0, is_master=True, wait_for_workers=False, timeout=_BIND_TIMEOUT)
        except DistError as error:
            raise RendezvousError(
                f"this node cannot host a TCPStore at its own address {host!r}: {error}; set "
                "local_addr to an address at which this node can be reached"
            ) from error
        self._server: TCPStore | None = store
        self.host = host
        self.port: int = store.port

    def close(self) -> None:
        """Stop serving; torch closes the port when the last reference goes."""
        self._server = None


def connect_to_store(host: str, port: int, seconds: float) -> TCPStore:
    """A client of the store at ``host``.

    :raises DistNetworkError: (torch's) nobody answered within so many ``seconds``.
    """
    timeout = timedelta(seconds=seconds)
    return TCPStore(host, port, is_master=False, wait_for_workers=False, timeout=timeout)
