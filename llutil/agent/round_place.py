"""What a sealed round means for one node, in torch's words and in those for people.

Nothing here acts. It imports torch's value of a worker, the protocol's records and instructions,
and the values of ``llutil.agent_socket``.
"""

from __future__ import annotations

from torch.distributed.elastic.agent.server.api import Worker

from llutil.agent_socket.round_end import RoundEndKind
from llutil.rendezvous.protocol.instructions import StopWorkers
from llutil.rendezvous.protocol.records import Assignment, Cause, RankAssignment

__all__ = ["names_of_nodes", "stop_kind", "torch_workers"]

_KINDS = {
    Cause.SUCCEEDED: RoundEndKind.SUCCESS,
    Cause.FAILED: RoundEndKind.FAILURE,
    Cause.LOST: RoundEndKind.LOST,
    Cause.GROWN: RoundEndKind.MEMBERSHIP,
    Cause.STOPPED: RoundEndKind.STOP,
    Cause.LEFT: RoundEndKind.LOST,
}


def torch_workers(place: RankAssignment) -> list[Worker]:
    """torch's values of the workers at ``place``, which do not run yet."""
    return [
        Worker(
            local_rank=local_rank,
            global_rank=place.first_rank + local_rank,
            role_rank=place.first_role_rank + local_rank,
            world_size=place.world_size,
            role_world_size=place.role_world_size,
        )
        for local_rank in range(place.nproc)
    ]


def names_of_nodes(assignment: Assignment) -> tuple[str, ...]:
    """The names of a round's nodes for people, in the order of ranks."""
    return tuple(seat.label or seat.address for seat in assignment.seats)


def stop_kind(stop: StopWorkers) -> RoundEndKind:
    """Why the ranks here are stopped."""
    if stop.cause is not None:
        return _KINDS[stop.cause]
    return RoundEndKind.LOST if stop.round_failed else RoundEndKind.SIGNAL
