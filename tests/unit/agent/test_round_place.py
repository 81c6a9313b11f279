"""What a sealed round means for one node: its workers, its nodes' names, and how it is stopped."""

from __future__ import annotations

import pytest

from llutil.agent.round_place import names_of_nodes, stop_kind, torch_workers
from llutil.agent_socket.round_end import RoundEndKind
from llutil.rendezvous.protocol.instructions import StopWorkers
from llutil.rendezvous.protocol.records import Assignment, Cause, Seat, Stage

STAGE = Stage(1, 3)


def seat(node: str, label: str = "") -> Seat:
    return Seat(
        node=node, name=node, address=f"host-{node}", role="r", nproc=2, token="", label=label
    )


SEALED = Assignment(
    generation=1,
    round=3,
    restarts=0,
    seats=(seat("a", "t.0"), seat("b")),
    host="h",
    port=1,
    by="a",
)


def test_a_node_without_a_name_is_told_by_its_address() -> None:
    assert names_of_nodes(SEALED) == ("t.0", "host-b")


def test_workers_have_the_ranks_of_their_nodes_seat() -> None:
    workers = torch_workers(SEALED.ranks_of("b"))
    assert [(one.local_rank, one.global_rank, one.world_size) for one in workers] == [
        (0, 2, 4),
        (1, 3, 4),
    ]


@pytest.mark.parametrize(
    ("cause", "failed", "kind"),
    [
        (Cause.SUCCEEDED, False, RoundEndKind.SUCCESS),
        (Cause.FAILED, True, RoundEndKind.FAILURE),
        (Cause.LOST, True, RoundEndKind.LOST),
        (Cause.GROWN, False, RoundEndKind.MEMBERSHIP),
        (Cause.STOPPED, False, RoundEndKind.STOP),
        (Cause.LEFT, False, RoundEndKind.LOST),
        (None, True, RoundEndKind.LOST),
        (None, False, RoundEndKind.SIGNAL),
    ],
)
def test_why_ranks_are_stopped_is_said_in_one_word(
    cause: Cause | None, failed: bool, kind: RoundEndKind
) -> None:
    assert stop_kind(StopWorkers(STAGE, "why", failed, cause)) is kind


def test_every_cause_has_a_word() -> None:
    for cause in Cause:
        stop_kind(StopWorkers(STAGE, "why", round_failed=False, cause=cause))
