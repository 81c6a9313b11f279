"""What the records of a run say of it, to people."""

from __future__ import annotations

from llutil.command_line.job_ledger import LedgerStatus, status_from
from llutil.rendezvous.protocol.gate_records import WishKind
from llutil.rendezvous.protocol.records import Cause, Member, Record
from llutil.rendezvous.protocol.run_history import RunHistory
from tests.support.rendezvous_values import decision, marker, member, round_of, seat, verdict


def status(*records: Record, members: tuple[Member, ...] = ()) -> LedgerStatus:
    found = status_from("run", members, RunHistory().with_records(records))
    assert found is not None
    return found


def test_without_any_record_there_is_no_such_run() -> None:
    assert status_from("run", (), RunHistory()) is None


def test_nodes_that_wait_for_others() -> None:
    found = status(members=(member("a", label="gpu-7", nproc=4),))
    assert (found.state, found.generation, found.round, found.world_size) == ("waits", 1, 0, 0)
    (node,) = found.nodes
    assert (node.label, node.nproc, node.first_rank, node.lives) == ("gpu-7", 4, None, True)


def test_a_round_that_runs_with_a_node_that_is_lost_and_one_that_waits() -> None:
    sealed = round_of("ab", (2, 3), restarts=1, seats=(seat("a", nproc=2), seat("b", nproc=4)))
    found = status(
        round_of("a", (2, 2)),
        verdict(Cause.GROWN, (2, 2), why="node b came"),
        sealed,
        members=(member("a"), member("c")),
    )
    assert (found.state, found.generation, found.round, found.restarts) == ("runs", 2, 3, 1)
    assert found.world_size == 6
    assert found.last_end == "round 2 of generation 2: grown: node b came"
    nodes = [(node.name, node.first_rank, node.lives) for node in found.nodes]
    assert nodes == [("a", 0, True), ("b", 2, False), ("c", None, True)]


def test_what_ranks_have_agreed_on() -> None:
    pause = decision(12, 1, WishKind.PAUSE, why="llutil pause")
    assert status(round_of("a"), pause).detail == "pause after step 12: llutil pause"
    resumed = decision(None, 2, resumed=2)
    assert status(round_of("a"), pause, resumed).detail.endswith("; resumed since")
    over = (round_of("a"), pause, verdict(Cause.LOST), round_of("a", (1, 2)))
    assert not status(*over).detail


def test_a_job_that_is_over() -> None:
    failed = marker(Cause.FAILED, (1, 2), why="rank 3 failed")
    found = status(round_of("a", (1, 2)), verdict(Cause.FAILED, (1, 2), final=True), failed)
    assert (found.state, found.generation, found.round) == ("ended", 1, 2)
    assert found.outcome == "failed: rank 3 failed"
    assert not found.nodes


def test_a_rerun_that_waits_says_how_the_life_before_it_ended() -> None:
    found = status(marker(Cause.FAILED, (1, 2)), members=(member("a"),))
    assert (found.state, found.generation, found.outcome) == ("waits", 2, "generation 1: failed")


def test_a_job_whose_nodes_are_gone_without_a_word() -> None:
    found = status(round_of("ab"), verdict(Cause.LOST, why="node b is gone"))
    assert (found.state, found.outcome, found.nodes) == ("left", "", ())
