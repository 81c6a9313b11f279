"""The rendezvous of a job of one node. There is nobody to agree with, so it never waits.

The agent hosts the round's ``TCPStore``. It listens at a loopback address, at a port that the
kernel chooses; it is bound before the workers get it. Each round has a new store, so that no worker
finds a key of an earlier round. This module may import torch and ``driver.round_store``; it
connects to no other host.
"""

from __future__ import annotations

from torch.distributed import DistError, PrefixStore, TCPStore
from torch.distributed.elastic.rendezvous import (
    RendezvousHandler,
    RendezvousInfo,
    RendezvousStoreInfo,
)

from llutil.errors import RendezvousError
from llutil.rendezvous.driver.round_store import (
    host_store,
    hosting_problem,
    place_for_ranks_store,
    ranks_use_agent_store,
)

__all__ = ["SingleNodeRendezvousHandler"]

_LOOPBACK = "127.0.0.1"


class SingleNodeRendezvousHandler(RendezvousHandler):
    """torch's rendezvous interface for one node. ``next_rendezvous`` always returns at once."""

    def __init__(self, run_id: str) -> None:
        self._run_id = run_id
        self._use_agent_store = ranks_use_agent_store()
        self._round = 0
        self._store: TCPStore | None = None
        self._closed = False

    @property
    def use_agent_store(self) -> bool:
        """Workers connect to the agent's store, unless torch's variable says otherwise. Then torch
        picks a free port, which another process could take before rank 0 binds it.
        """
        return self._use_agent_store

    def get_backend(self) -> str:
        """The backend's name."""
        return "embedded"

    def get_run_id(self) -> str:
        """The job's run id."""
        return self._run_id

    def next_rendezvous(self) -> RendezvousInfo:
        """A round of this node alone, with a new store.

        :raises RendezvousError: this node cannot connect to itself.
        """
        self._round += 1
        try:
            self._store = host_store(_LOOPBACK)
        except (OSError, DistError) as error:
            raise RendezvousError(
                f"this node cannot host a TCPStore at {_LOOPBACK}: {hosting_problem(error)}"
            ) from error
        return RendezvousInfo(
            store=PrefixStore(f"round_{self._round}", self._store),
            rank=0,
            world_size=1,
            bootstrap_store_info=(
                RendezvousStoreInfo(_LOOPBACK, self._store.port)
                if self.use_agent_store
                else place_for_ranks_store(self._store, 0, _LOOPBACK)
            ),
        )

    def num_nodes_waiting(self) -> int:
        """Always 0: there are no other nodes."""
        return 0

    def is_closed(self) -> bool:
        """Whether ``set_closed`` or ``shutdown`` was called."""
        return self._closed

    def set_closed(self) -> None:
        """Mark the rendezvous as closed."""
        self._closed = True

    def shutdown(self) -> bool:
        """Close the rendezvous and its store."""
        self._closed = True
        self._store = None
        return True
