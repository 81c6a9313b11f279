"""Where rank 0 makes the store of a round's ranks, if the user does not want the agents' store for
that (torch's variable ``TORCH_DISABLE_SHARE_RDZV_TCP_STORE``).

This module may import torch, ``llutil.errors`` and ``llutil.rendezvous``.
"""

from __future__ import annotations

from torch.distributed import DistError

from llutil.errors import RendezvousError
from llutil.rendezvous.driver.round_store import (
    SHARING_OFF,
    connect_to_store,
    place_for_ranks_store,
)
from llutil.rendezvous.protocol.records import Assignment

__all__ = ["place_of_ranks_store"]

# Seconds for the first node of a round to say where that is.
_KNOWN = 30.0


def place_of_ranks_store(assignment: Assignment, node: str) -> tuple[str, int]:
    """The host and port of that store. ``node`` is one of the round's, which asks.

    :raises RendezvousError: the first node did not say in time.
    """
    seat = assignment.seat(node)
    assert seat is not None, "it has ranks in this round"
    try:
        store = connect_to_store(assignment.host, assignment.port, _KNOWN)
        rank = assignment.ranks_of(node).group_rank
        found = place_for_ranks_store(store, rank, seat.address)
    except DistError as error:
        raise RendezvousError(
            f"{assignment.stage}: the first node did not say where its ranks make their store "
            f"({SHARING_OFF}=1): {error}"
        ) from error
    return found.master_addr, found.master_port
