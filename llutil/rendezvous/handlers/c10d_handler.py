"""torch's c10d rendezvous, with a new store for the workers of each round.

torch's handler gives the workers of all rounds the same ``TCPStore``, with the same keys (torch
2.13). So after a restart a rank may read an address that another rank wrote in the last round, and
a node that joins later waits for an address that nobody writes any more. Here the first node of
each round hosts a new store. Its port is bound before it is published. This module imports torch.
"""

from __future__ import annotations

from torch.distributed.elastic.rendezvous import (
    RendezvousHandler,
    RendezvousInfo,
    RendezvousStoreInfo,
)

from llutil.rendezvous.driver.round_store import (
    RoundStore,
    ranks_use_agent_store,
    store_sharing_disabled,
)

__all__ = ["C10dRendezvousHandler"]

_PORT = "llutil/port"


class C10dRendezvousHandler(RendezvousHandler):
    """``inner``, which is torch's handler, with another store for workers."""

    def __init__(self, inner: RendezvousHandler) -> None:
        self._inner = inner
        self._use_agent_store = ranks_use_agent_store()
        self._hosted: RoundStore | None = None

    @property
    def use_agent_store(self) -> bool:
        """Workers connect to the store that the first node of the round hosts, unless torch's
        variable says otherwise.
        """
        return self._use_agent_store

    def get_backend(self) -> str:
        """The backend's name."""
        return str(self._inner.get_backend())

    def get_run_id(self) -> str:
        """The job's run id."""
        return str(self._inner.get_run_id())

    def next_rendezvous(self) -> RendezvousInfo:
        """Wait for the next round.

        :raises RendezvousError: (torch's) no round began; (llutil's) this node cannot host the
            round's store.
        """
        with store_sharing_disabled():
            info = self._inner.next_rendezvous()
        if not self.use_agent_store:
            return info
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
        """How many nodes wait for the next round."""
        return int(self._inner.num_nodes_waiting())

    def is_closed(self) -> bool:
        """Whether no further round can begin under this run id."""
        return bool(self._inner.is_closed())

    def set_closed(self) -> None:
        """Allow no further round under this run id."""
        self._inner.set_closed()

    def shutdown(self) -> bool:
        """Close the rendezvous for all nodes, as torch does, and the round's store."""
        if self._hosted is not None:
            self._hosted.close()
        return bool(self._inner.shutdown())
