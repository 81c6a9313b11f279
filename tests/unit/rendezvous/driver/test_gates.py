"""Drivers in threads on one store in memory agree on a step, and leave nothing of that behind."""

from __future__ import annotations

import time

from llutil.rendezvous.protocol import instructions as do
from llutil.rendezvous.protocol import observations as see
from llutil.rendezvous.protocol.gate_records import WishKind
from llutil.rendezvous.protocol.records import Stage
from tests.support.memory_rendezvous import RUN, MemoryRendezvous, Node

FIRST = Stage(1, 1)


def wishes(node: Node, *kinds: str, preempted: bool = False) -> None:
    node.tell(see.WishMade(frozenset(map(WishKind, kinds)), "somebody asked", preempted))


def leader_first(nodes: list[Node]) -> list[Node]:
    """The same nodes; the one that sealed their round comes first."""
    assert nodes[0].round is not None
    by = nodes[0].round.by
    return sorted(nodes, key=lambda node: not by.startswith(f"{node.name}."))


def test_all_nodes_do_what_one_of_them_wishes_at_one_step(rendezvous: MemoryRendezvous) -> None:
    nodes = leader_first(rendezvous.gang("a", "b", "c"))
    wishes(nodes[2], "checkpoint", "stop", preempted=True)
    for node, furthest in zip(nodes, (7, 8, None), strict=True):
        assert node.raises(furthest).gate.kinds == ("checkpoint", "stop")
    for node in nodes:
        opened = node.opens()
        assert (opened.step, opened.kinds, opened.preempted) == (8, ("checkpoint", "stop"), True)
    for node in nodes:
        node.succeeds()
    for node in nodes:
        node.ends(do.FinishedWell)
    assert rendezvous.keys(RUN.log) == ["log/000001.marker"]
    assert rendezvous.keys(RUN.reports(FIRST)) == rendezvous.keys(RUN.answers(FIRST, 1)) == []


def test_of_many_wishes_of_a_round_only_the_newest_gate_stays(
    rendezvous: MemoryRendezvous,
) -> None:
    leader, other = nodes = leader_first(rendezvous.gang("a", "b"))
    for number, by in enumerate((leader, other, other, leader, other), 1):
        wishes(by, "checkpoint")
        for node in nodes:
            assert node.raises(10 * number).gate.number == number
        for node in nodes:
            assert node.opens().step == 10 * number
    wishes(other, "resume")
    for node in nodes:
        opened = node.opens()
        assert (opened.number, opened.step, opened.resumed) == (6, None, 6)
    kept = [f"log/000001.000001.{word}" for word in ("assignment", "decision5", "decision6")]
    kept.append("log/000001.000001.gate6")

    def left() -> list[str]:
        return rendezvous.keys(RUN.log) + rendezvous.keys(RUN.reports(FIRST))

    deadline = time.monotonic() + 10
    while left() != kept:
        assert time.monotonic() < deadline, left()
        assert not leader.peek(0.01)
    assert not any(rendezvous.keys(RUN.answers(FIRST, number)) for number in range(1, 7))
    assert leader.driver._machine.state.reports.wishes == []


def test_a_node_that_cannot_hold_its_ranks_is_named_to_all(rendezvous: MemoryRendezvous) -> None:
    nodes = leader_first(rendezvous.gang("a", "b"))
    wishes(nodes[0], "pause")
    nodes[0].raises(3)
    nodes[1].raises(None, "it has no page")
    for node in nodes:
        opened = node.opens()
        assert (opened.kinds, opened.step) == ((), None)
        assert f"{nodes[1].name}.1: it has no page" in opened.why


def test_a_node_that_does_not_answer_delays_the_others_for_a_limited_time(
    rendezvous: MemoryRendezvous,
) -> None:
    nodes = leader_first(rendezvous.gang("a", "b", gate_timeout=0.1))
    wishes(nodes[1], "checkpoint")
    nodes[0].raises(3)
    assert "did not answer within 0.1 s" in nodes[0].opens().why


def test_ranks_save_before_a_newcomer_is_let_in(rendezvous: MemoryRendezvous) -> None:
    growing = {"max_nodes": 3, "saves_before_growth": True, "gate_timeout": 60.0}
    nodes = leader_first(rendezvous.gang("a", "b", **growing))
    nodes.append(rendezvous.node("c", min_nodes=2, **growing))
    for node, furthest in zip(nodes[:2], (7, 8), strict=True):
        assert node.raises(furthest).gate.kinds == ("checkpoint",)
    for node in nodes[:2]:
        assert node.opens().step == 8
    nodes[1].tell(see.CheckpointSaved(FIRST, 1))
    assert not nodes[1].peek(0.05)
    nodes[0].tell(see.CheckpointSaved(FIRST, 1))
    # The next round needs but two of them: it may begin without one that has not looked yet.
    assert all(node.peek(10.0) for node in nodes[:2])
    for node in nodes[:2]:
        assert "a checkpoint was saved before at step 8" in node.stops().why
