"""torch's c10d rendezvous, with a store of its own for the workers of every round.

torch's handler serves one ``TCPStore`` to the workers of all rounds, under the same keys (torch
2.13). So after a restart a rank may read the address that another one had in the last round, and a
node that joins later waits for an address that nobody writes any more. Here the round's first node
serves a new store to each round, on a port that is bound before anybody hears of it. This module
imports torch.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from torch.distributed.elastic.rendezvous import (
    RendezvousHandler,
    RendezvousInfo,
    RendezvousStoreInfo,
)

from llutil.rendezvous.driver.round_store import RoundStore

__all__ = ["FreshStores", "sharing_off"]

_PORT = "llutil/port"
_SHARING_OFF = "TORCH_DISABLE_SHARE_RDZV_TCP_STORE"


class FreshStores(RendezvousHandler):
    """``inner``, torch's handler, but for the store that workers use."""

    def __init__(self, inner: RendezvousHandler) -> None:
        self._inner = inner
        self._hosted: RoundStore | None = None

    @property
    def use_agent_store(self) -> bool:
        """Workers connect to the store that the first node of the round serves."""
        return True

    def get_backend(self) -> str:
        """The backend's name."""
        return str(self._inner.get_backend())

    def get_run_id(self) -> str:
        """The job's run id."""
        return str(self._inner.get_run_id())

    def next_rendezvous(self) -> RendezvousInfo:
        """Wait for the next round.

        :raises RendezvousError: (torch's) it did not form; (ours) this node cannot serve the
            round's store.
        """
        with sharing_off():
            info = self._inner.next_rendezvous()
        address = info.bootstrap_store_info.master_addr
        if self._hosted is not None:
            self._hosted.close()
            self._hosted = None
        if info.rank == 0:
            self._hosted = RoundStore(address)
            info.store.set(_PORT, str(self._hosted.port))
        port = int(info.store.get(_PORT))
        return RendezvousInfo(
            info.store, info.rank, info.world_size, RendezvousStoreInfo(address, port)
        )

    def num_nodes_waiting(self) -> int:
        """How many nodes wait to be let in."""
        return int(self._inner.num_nodes_waiting())

    def is_closed(self) -> bool:
        """Whether the run id takes no further round."""
        return bool(self._inner.is_closed())

    def set_closed(self) -> None:
        """Let no further round begin under this run id."""
        self._inner.set_closed()

    def shutdown(self) -> bool:
        """Close the rendezvous for everybody, as torch does, and give the round's store back."""
        if self._hosted is not None:
            self._hosted.close()
        return bool(self._inner.shutdown())


@contextmanager
def sharing_off() -> Iterator[None]:
    """Have torch's handler make no store of its own; it asks for no other way to say so."""
    before = os.environ.get(_SHARING_OFF)
    os.environ[_SHARING_OFF] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[_SHARING_OFF]
        else:
            os.environ[_SHARING_OFF] = before
