"""One node's machine at the gates of its round: what it tells its agent, and what it writes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from llutil.rendezvous.protocol import instructions as do
from llutil.rendezvous.protocol import observations as see
from llutil.rendezvous.protocol.gate_records import (
    Gate,
    GateAnswer,
    GateDecision,
    Wish,
    WishKind,
)
from llutil.rendezvous.protocol.machine import Machine
from llutil.rendezvous.protocol.records import Cause, Record, Report, ReportKind, Stage, Verdict
from llutil.rendezvous.protocol.run_history import RunHistory
from tests.support.rendezvous_values import (
    answer,
    decision,
    gate,
    member,
    report,
    round_of,
    rules,
    verdict,
    wish,
)

FIRST = Stage(1, 1)
LIMIT = 25.0
"""Two times five seconds, and one and a half leases of ten."""


class Node:
    """A machine in a first round of a and b that runs."""

    def __init__(self, name: str) -> None:
        self.machine = Machine(rules(2, 2), member(name))
        self.now = 0.0
        self.log = RunHistory()
        self.last: tuple[do.Instruction, ...] = ()
        self.sees(see.Ticked())
        self.sees(see.LeaseTaken(self.ticket, 0.0))

    @property
    def ticket(self) -> int:
        assert self.machine.state.pending is not None
        return self.machine.state.pending.ticket

    def sees(self, observation: see.Observation, now: float | None = None) -> list[Any]:
        """The instructions that follow, without the Wait."""
        self.now = self.now if now is None else now
        self.last = self.machine.step(observation, self.now)
        return list(self.last[:-1])

    def reads(self, *records: Record, now: float | None = None) -> list[Any]:
        """The log has these records, too."""
        self.log = self.log.with_records(records)
        return self.sees(see.LogSeen(self.log), now)

    def wishes(self, *kinds: str) -> list[Any]:
        return self.sees(see.WishMade(frozenset(map(WishKind, kinds)), "somebody asked"))

    @property
    def written(self) -> tuple[Record, ...]:
        """What the write under way writes."""
        pending = self.machine.state.pending
        assert isinstance(pending, do.Create)
        return pending.records

    @property
    def until(self) -> float:
        wait = self.last[-1]
        assert isinstance(wait, do.Wait)
        return wait.until


@pytest.fixture
def follower() -> Node:
    node = Node("b")
    node.sees(see.Joined(node.ticket, ("a.1",), RunHistory()))
    (start,) = node.reads(round_of("ab"))
    assert isinstance(start, do.StartWorkers)
    return node


@pytest.fixture
def leader() -> Node:
    node = Node("a")
    node.sees(see.Joined(node.ticket, (), RunHistory()))
    node.sees(see.MembersSeen((member("a"), member("b"))))
    node.sees(see.StoreOpened(FIRST, "10.0.0.1", 29500))
    node.log = node.log.with_records(node.written)
    node.sees(see.Created(node.ticket))
    return node


def raised(node: Node, furthest: int | None = 7) -> None:
    """A gate is raised at the node, and its answer, if it has to write that, is written."""
    assert [type(one) for one in node.reads(gate())] == [do.RaiseGate]
    node.sees(see.GateRaised(FIRST, 1, furthest))
    assert node.written == (answer("b", furthest),)
    node.sees(see.Created(node.ticket))


def test_a_member_raises_a_gate_answers_once_and_opens_it(follower: Node) -> None:
    raised(follower)
    assert follower.sees(see.GateRaised(FIRST, 1, 9)) == []
    (opened,) = follower.reads(decision(8))
    assert opened == do.OpenGate(
        FIRST, 1, (WishKind.CHECKPOINT,), 8, 0, debugged=False, preempted=False, why=opened.why
    )
    assert follower.reads(decision(8)) == []
    assert follower.until == float("inf")


def test_a_member_hears_of_a_decision_with_the_next_gate(follower: Node) -> None:
    raised(follower)
    opened, again = follower.reads(decision(8), gate(2))
    assert (opened.number, opened.step) == (1, 8)
    assert (again.gate.number, follower.machine.state.gates.holds) == (2, True)


def test_a_decision_that_a_later_one_follows_at_once_is_not_missed(follower: Node) -> None:
    raised(follower)
    opened, resumed = follower.reads(decision(8), gate(2, "resume"), decision(None, 2, resumed=2))
    assert (opened.number, opened.step, opened.resumed) == (1, 8, 0)
    assert (resumed.number, resumed.kinds, resumed.resumed) == (2, (), 2)


def test_stacks_that_are_wanted_are_told_also_to_a_member_that_raised_no_gate(
    follower: Node,
) -> None:
    (opened,) = follower.reads(gate(1, "stacks"), decision(None, 1, stacks=1))
    assert (opened.number, opened.kinds, opened.stacks) == (1, (), 1)


def test_a_member_that_hears_nothing_opens_its_gate_and_acts_never(follower: Node) -> None:
    raised(follower)
    assert follower.until == LIMIT
    follower.sees(see.LeaseRenewed(20.0), 20.0)
    (opened,) = follower.sees(see.Ticked(), LIMIT)
    assert (opened.number, opened.kinds, opened.step) == (1, (), None)
    assert "no decision came within 25 s" in opened.why
    assert follower.reads(decision(8)) == []


def test_a_resume_is_heard_of_also_by_who_has_opened_its_gate(follower: Node) -> None:
    raised(follower)
    follower.sees(see.LeaseRenewed(20.0), 20.0)
    follower.sees(see.Ticked(), LIMIT)
    (resumed,) = follower.reads(decision(8, resumed=1))
    assert (resumed.kinds, resumed.step, resumed.resumed) == ((), None, 1)


def test_a_suspended_member_raises_no_gate_and_opens_one(follower: Node) -> None:
    raised(follower)
    assert [type(one) for one in follower.reads(decision(8), gate(2), now=11.0)] == [do.OpenGate]
    assert [type(one) for one in follower.sees(see.LeaseRenewed(12.0), 12.0)] == [do.RaiseGate]


def test_a_ledger_that_has_gone_for_good_holds_nobody_and_refuses_wishes(follower: Node) -> None:
    raised(follower)
    follower.wishes("stop")
    refused, opened = follower.sees(see.LedgerGone("its server died"))
    assert (opened.kinds, opened.resumed) == ((), 2)
    assert (refused.wish.kinds, "its server died" in refused.why) == ((WishKind.STOP,), True)
    assert [type(one) for one in follower.wishes("pause")] == [do.RefuseWish]


def test_a_ledger_that_has_gone_for_good_ends_the_pause_of_a_gate_that_is_open(
    follower: Node,
) -> None:
    raised(follower)
    (paused,) = follower.reads(decision(8, 1, "pause"))
    assert (paused.number, paused.kinds) == (1, (WishKind.PAUSE,))
    (opened,) = follower.sees(see.LedgerGone("its server died"))
    assert (opened.number, opened.kinds) == (1, ())
    assert opened.resumed > paused.number
    assert follower.sees(see.Ticked()) == []


def test_the_end_of_a_round_is_told_by_its_stop_alone(follower: Node) -> None:
    raised(follower)
    stops = follower.reads(verdict(Cause.LOST))
    assert [type(one) for one in stops] == [do.StopWorkers]
    assert follower.sees(see.Ticked(), 2 * LIMIT) == []


def test_who_has_ended_raises_and_answers_nothing(follower: Node) -> None:
    follower.sees(see.WorkersEnded(FIRST, None))
    assert isinstance(follower.written[0], Report)
    follower.sees(see.Created(follower.ticket))
    assert follower.reads(gate()) == []


def test_a_members_wish_is_written_and_answered_with_a_gate_or_refused(follower: Node) -> None:
    follower.wishes("checkpoint")
    assert follower.written == (wish("b", why="somebody asked"),)
    follower.sees(see.Created(follower.ticket))
    assert follower.until == LIMIT
    follower.sees(see.LeaseRenewed(20.0), 20.0)
    (refused,) = follower.sees(see.Ticked(), LIMIT)
    assert isinstance(refused, do.RefuseWish)
    assert "did not hear of it" in refused.why
    follower.wishes("stop")
    assert isinstance(follower.written[0], Wish)
    assert follower.written[0].number == 2
    follower.sees(see.Created(follower.ticket))
    follower.reads(gate(heard=(("b.1", 2),)))
    assert follower.machine.state.gates.wishes == ()


def test_a_wish_without_a_round_is_refused() -> None:
    node = Node("a")
    (refused,) = node.wishes("stop")
    assert isinstance(refused, do.RefuseWish)


def test_the_leader_asks_all_decides_and_cleans_up(leader: Node) -> None:
    leader.wishes("checkpoint")
    (asked,) = leader.written
    assert isinstance(asked, Gate)
    assert asked.heard == (("a.1", 1),)
    raise_, watch = leader.sees(see.Created(leader.ticket))
    assert isinstance(raise_, do.RaiseGate)
    assert watch == do.WatchAnswers(FIRST, 1, watch.why)
    assert leader.sees(see.GateRaised(FIRST, 1, 9)) == []  # it writes nothing to itself
    assert leader.until == 5.0
    leader.sees(see.AnswersSeen(FIRST, 1, (answer("b", 8),)))
    (decided,) = leader.written
    assert isinstance(decided, GateDecision)
    assert (decided.step, decided.kinds) == (9, ("checkpoint",))
    opened, clean = leader.sees(see.Created(leader.ticket))
    assert (opened.number, opened.step) == (1, 9)
    assert clean == do.DeleteGates(FIRST, 1, 1, (("a.1", 1),), clean.why)
    assert leader.until == float("inf")


def cleaned(instructions: list[Any]) -> list[do.DeleteGates]:
    return [one for one in instructions if isinstance(one, do.DeleteGates)]


def test_a_wish_that_is_heard_is_deleted_and_never_heard_again(leader: Node) -> None:
    first, second = wish("b", 1, "resume"), wish("b", 2, "resume")
    leader.sees(see.ReportsSeen(FIRST, (first,)))
    leader.sees(see.ReportsSeen(FIRST, (first, second)))
    (clean,) = cleaned(leader.sees(see.Created(leader.ticket)))
    assert clean == do.DeleteGates(FIRST, 1, 0, (("b.1", 1),), clean.why)
    assert leader.machine.state.reports.wishes == [second]
    assert leader.written[0] == gate(2, "resume", heard=(("b.1", 2),))
    (clean,) = cleaned(leader.sees(see.Created(leader.ticket)))
    assert clean.heard == (("b.1", 2),)
    # The view is late; or the node had no answer, and wrote its wish anew.
    for view in ((second,), (), (second,)):
        assert leader.sees(see.ReportsSeen(FIRST, view)) == []
    assert leader.machine.state.reports.wishes == []


def test_a_new_leader_knows_from_the_newest_gate_what_is_heard(follower: Node) -> None:
    follower.reads(gate(1, "resume", heard=(("a.1", 1), ("b.1", 2))), decision(None, 1, resumed=1))
    follower.sees(see.PredecessorGone("a.1"))
    follower.sees(see.LogRead(follower.ticket, follower.log))
    follower.sees(see.MembersSeen((member("b"),)))
    ended = report("a", ReportKind.SUCCEEDED)
    late, new = wish("a", 1, "resume"), wish("b", 3, "resume")
    seen = follower.sees(see.ReportsRead(follower.ticket, FIRST, (ended, late, new)))
    assert [clean.heard for clean in cleaned(seen)] == [(("a.1", 1), ("b.1", 2))]
    heard = (("a.1", 1), ("b.1", 3))
    assert follower.written[0] == gate(2, "resume", by="b.1", heard=heard)


def test_a_resume_is_decided_with_its_gate(leader: Node) -> None:
    leader.sees(see.ReportsSeen(FIRST, (wish("b", 1, "resume"),)))
    asked, decided = leader.written
    assert isinstance(asked, Gate)
    assert isinstance(decided, GateDecision)
    assert (decided.number, decided.kinds, decided.resumed) == (asked.number, (), 1)


def test_a_member_is_told_of_a_debugger_and_keeps_to_it_when_nobody_decides(
    follower: Node,
) -> None:
    asked, told = gate(1, "debugger_start"), decision(None, 1, debugged=True)
    (begun,) = follower.reads(asked, told)
    assert (begun.kinds, begun.debugged) == ((), True)
    follower.reads(gate(2))
    follower.sees(see.LeaseRenewed(20.0), 20.0)
    (opened,) = follower.sees(see.Ticked(), LIMIT)
    assert (opened.number, opened.debugged) == (2, True)
    (ended,) = follower.sees(see.LedgerGone("its server died"))
    assert not ended.debugged


def test_who_has_ended_may_still_say_that_its_debugger_has(follower: Node) -> None:
    follower.sees(see.WorkersEnded(FIRST, None))
    follower.sees(see.Created(follower.ticket))
    follower.wishes("debugger_end")
    (wished,) = follower.written
    assert isinstance(wished, Wish)
    assert wished.kinds == ("debugger_end",)


def _fails(leader: Node) -> None:
    report = Report(generation=1, round=1, node="b.1", say="failed")  # type: ignore[arg-type]  # a ReportKind is a text
    leader.sees(see.ReportsSeen(FIRST, (wish("b", 1, "resume"), report)))


def _is_lost(leader: Node) -> None:
    leader.sees(see.ReportsSeen(FIRST, (wish("b", 1, "pause"),)))
    leader.sees(see.Created(leader.ticket))
    leader.sees(see.MembersSeen((member("a"),)))
    leader.sees(see.ReportsRead(leader.ticket, FIRST, ()))


@pytest.mark.parametrize("ends", [_fails, _is_lost])
def test_a_verdict_comes_before_any_gate(leader: Node, ends: Callable[[Node], None]) -> None:
    ends(leader)
    assert isinstance(leader.written[0], Verdict)


def test_an_answer_that_no_leader_waits_for_any_more_is_not_written(follower: Node) -> None:
    follower.reads(gate())
    follower.reads(decision(None))
    assert follower.sees(see.GateRaised(FIRST, 1, 7)) == []
    assert not isinstance(follower.machine.state.gates.answer, GateAnswer)
