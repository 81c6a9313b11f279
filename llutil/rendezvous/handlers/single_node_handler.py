"""The rendezvous of a job of one node: there is nobody to agree with, so nothing is asked and
nothing waits.

The agent hosts the round's ``TCPStore`` on a port that the kernel chose and that is bound before
anybody hears of it; each round has a store of its own, so that no key of an earlier one is ever
met. This module may import torch; it opens no connection to anywhere else.
"""

from __future__ import annotations

from torch.distributed import PrefixStore, TCPStore
from torch.distributed.elastic.rendezvous import (
    RendezvousHandler,
    RendezvousInfo,
    RendezvousStoreInfo,
)

__all__ = ["SingleNodeRendezvous"]

_LOOPBACK = "127.0.0.1"


class SingleNodeRendezvous(RendezvousHandler):
    """torch's rendezvous interface for one node; ``next_rendezvous`` returns at once, every
    time.
    """

    def __init__(self, run_id: str) -> None:
        self._run_id = run_id
        self._round = 0
        self._store: TCPStore | None = None
        self._closed = False

    @property
    def use_agent_store(self) -> bool:
        """Workers connect to the agent's store: no port is guessed, freed and lost to somebody
        else.
        """
        return True

    def get_backend(self) -> str:
        """The backend's name."""
        return "embedded"

    def get_run_id(self) -> str:
        """The job's run id."""
        return self._run_id

    def next_rendezvous(self) -> RendezvousInfo:
        """A round with this node alone in it, and a fresh store."""
        self._round += 1
        self._store = TCPStore(_LOOPBACK, 0, is_master=True, wait_for_workers=False)
        return RendezvousInfo(
            store=PrefixStore(f"round_{self._round}", self._store),
            rank=0,
            world_size=1,
            bootstrap_store_info=RendezvousStoreInfo(_LOOPBACK, self._store.port),
        )

    def num_nodes_waiting(self) -> int:
        """Nobody ever waits."""
        return 0

    def is_closed(self) -> bool:
        """Whether ``set_closed`` or ``shutdown`` was called."""
        return self._closed

    def set_closed(self) -> None:
        """Mark the rendezvous as closed."""
        self._closed = True

    def shutdown(self) -> bool:
        """Give the store back."""
        self._closed = True
        self._store = None
        return True
