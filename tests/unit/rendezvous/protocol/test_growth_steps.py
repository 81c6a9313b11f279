"""A leader has the ranks save before it lets somebody new in, and lets them in after a limited time
whatever comes of it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from llutil.rendezvous.protocol import instructions as do
from llutil.rendezvous.protocol import observations as see
from llutil.rendezvous.protocol.gate_records import Gate, GateDecision, WishKind
from llutil.rendezvous.protocol.machine import Machine
from llutil.rendezvous.protocol.records import Cause, ReportKind, Stage, Verdict
from llutil.rendezvous.protocol.run_history import RunHistory
from tests.support.rendezvous_values import answer, job_failure, member, report, rules, wish

FIRST = Stage(1, 1)
LIMIT, PAUSE = 60.0, 30.0


class Leader:
    """Node a, which leads a round of a and b; two more could come. Its requests are answered at
    once, unless they are writes.
    """

    def __init__(self, **others: Any) -> None:
        values: dict[str, Any] = {"saves_before_growth": True, "last_call": 0.0} | others
        self.machine = Machine(rules(2, 4, **values), member("a"))
        self.now = 0.0
        self.last: tuple[do.Instruction, ...] = ()
        self.reads = 0
        self.sees(see.Ticked())
        self.sees(see.LeaseTaken(self.ticket, 0.0))
        self.sees(see.Joined(self.ticket, (), RunHistory()))
        self.comes("")
        self.sees(see.StoreOpened(FIRST, "10.0.0.1", 29500))
        self.created()

    @property
    def ticket(self) -> int:
        assert self.machine.state.pending is not None
        return self.machine.state.pending.ticket

    def sees(self, observation: see.Observation, now: float | None = None) -> None:
        self.now = self.now if now is None else now
        if now is not None and self.machine.state.leased:
            self.machine.step(see.LeaseRenewed(now), now)
        self.last = self.machine.step(observation, self.now)
        pending = self.machine.state.pending
        if isinstance(pending, do.ReadReports):
            self.reads += 1
            self.sees(see.ReportsRead(pending.ticket, FIRST, ()))

    def created(self) -> None:
        self.sees(see.Created(self.ticket))

    def comes(self, names: str, now: float | None = None) -> None:
        """Besides a and b, these nodes are there now."""
        self.sees(see.MembersSeen(tuple(map(member, f"ab{names}"))), now)

    def passes(self, now: float) -> None:
        self.sees(see.Ticked(), now)

    def saved(self, number: int = 1, failure: str = "") -> None:
        self.sees(see.CheckpointSaved(FIRST, number, failure))

    @property
    def writes(self) -> Any:
        """The first record of the write under way, or None."""
        pending = self.machine.state.pending
        return pending.records[0] if isinstance(pending, do.Create) else None

    @property
    def until(self) -> float:
        wait = self.last[-1]
        assert isinstance(wait, do.Wait)
        return wait.until

    def asks(self, furthest: int | None = 7, refusal: str = "") -> None:
        """It writes a gate, and all nodes answer; the decision follows."""
        gate = self.writes
        assert isinstance(gate, Gate)
        number = gate.number
        self.created()
        self.sees(see.GateRaised(FIRST, number, furthest, refusal))
        self.sees(see.AnswersSeen(FIRST, number, (answer("b", furthest, number),)))
        assert isinstance(self.writes, GateDecision)
        self.created()

    def grown(self) -> str:
        """It writes the verdict now; why."""
        verdict = self.writes
        assert isinstance(verdict, Verdict)
        assert verdict.cause is Cause.GROWN
        return verdict.why


def asked(furthest: int | None = 7) -> Leader:
    """One that has asked for a checkpoint for x, at 1 s."""
    leader = Leader()
    leader.comes("x", 1.0)
    leader.asks(furthest)
    return leader


def test_without_a_place_for_checkpoints_a_newcomer_is_let_in_at_once() -> None:
    leader = Leader(saves_before_growth=False)
    leader.comes("x", 1.0)
    assert leader.grown() == "x.1 came, and 2 of 4 places are taken"


def test_a_newcomer_is_let_in_once_the_ranks_have_saved() -> None:
    leader = Leader()
    leader.comes("x", 1.0)
    gate = leader.writes
    assert (gate.kinds, gate.heard) == ((WishKind.CHECKPOINT,), ())
    assert gate.why == "before x.1 can come in"
    leader.asks(7)
    assert (leader.writes, leader.until) == (None, 61.0)
    leader.saved()
    assert leader.grown() == (
        "x.1 came, and 2 of 4 places are taken; a checkpoint was saved before at step 7"
    )
    assert leader.reads == 1  # whether anybody has succeeded, after the checkpoint


@pytest.mark.parametrize(
    ("furthest", "refusal", "told"),
    [
        (None, "", "no rank calls step"),
        (None, "it has no page", "a.1: it has no page"),
    ],
)
def test_where_nothing_can_be_saved_a_newcomer_is_let_in_at_once(
    furthest: int | None, refusal: str, told: str
) -> None:
    leader = Leader()
    leader.comes("x", 1.0)
    leader.asks(furthest, refusal)
    assert leader.grown().endswith(f"; nothing was saved: {told}")


def test_a_node_that_does_not_answer_delays_a_newcomer_for_the_gates_time_alone() -> None:
    leader = Leader()
    leader.comes("x", 1.0)
    leader.created()
    leader.passes(6.0)
    assert isinstance(leader.writes, GateDecision)
    leader.created()
    assert "nothing was saved: a.1, b.1 did not answer within 5 s" in leader.grown()


def test_ranks_that_fail_to_save_delay_a_newcomer_no_longer() -> None:
    leader = asked()
    leader.saved(failure="rank 1: no space left on device")
    assert leader.grown().endswith("; nothing was saved: rank 1: no space left on device")


def test_ranks_that_do_not_come_to_the_step_delay_a_newcomer_for_a_limited_time() -> None:
    leader = asked()
    leader.passes(60.9)
    assert leader.writes is None
    leader.passes(61.0)
    assert "nothing was saved within 60 s" in leader.grown()


def test_whoever_comes_meanwhile_is_let_in_by_the_same_verdict() -> None:
    leader = asked()
    leader.comes("xy", 2.0)
    assert leader.until == 61.0
    leader.saved()
    assert leader.grown().startswith("x.1, y.1 came")
    assert leader.reads == 1


def test_nothing_happens_to_a_round_whose_newcomer_has_left() -> None:
    leader = asked()
    leader.comes("", 2.0)
    leader.saved()
    leader.passes(100.0)
    assert (leader.writes, leader.until) == (None, float("inf"))


def test_a_checkpoint_that_is_under_way_serves_the_next_newcomer() -> None:
    leader = asked()
    leader.comes("", 2.0)
    leader.comes("y", 50.0)
    assert (leader.writes, leader.until) == (None, 110.0)
    leader.saved()
    assert "a checkpoint was saved before" in leader.grown()


def test_nodes_that_come_and_go_do_not_keep_ranks_saving() -> None:
    leader = asked()
    leader.comes("", 2.0)
    leader.saved()
    for now in (3.0, 5.0, 7.0):
        leader.comes("y", now)
        assert (leader.writes, leader.until) == (None, 1.0 + PAUSE)
        leader.comes("", now + 1.0)
        assert leader.writes is None
    leader.comes("z", 9.0)
    leader.passes(1.0 + PAUSE)
    assert leader.writes.number == 2
    leader.asks(9)
    assert leader.until == 9.0 + LIMIT
    leader.saved(2)
    assert "saved before at step 9" in leader.grown()


def test_a_wish_for_a_checkpoint_meanwhile_serves_newcomers_too() -> None:
    leader = asked()
    leader.comes("", 2.0)
    leader.saved()
    leader.comes("y", 3.0)
    leader.sees(see.ReportsSeen(FIRST, (wish("b"),)))
    leader.asks(9)
    leader.saved(2)
    assert "saved before at step 9" in leader.grown()


def test_a_later_checkpoint_serves_newcomers_if_nothing_is_heard_of_theirs() -> None:
    leader = asked()
    leader.sees(see.ReportsSeen(FIRST, (wish("b"),)))
    leader.asks(9)
    leader.saved(2)
    assert leader.grown().endswith("; a checkpoint was saved before")


def test_open_wishes_are_in_the_same_gate() -> None:
    leader = Leader()
    leader.sees(see.ReportsSeen(FIRST, (wish("b", 1, "resume"),)))
    leader.comes("x", 1.0)
    leader.sees(see.ReportsSeen(FIRST, (wish("b", 1, "resume"), wish("b", 2, "pause"))))
    leader.created()
    gate = leader.writes
    assert (gate.number, gate.kinds, gate.heard) == (2, ("checkpoint", "pause"), (("b.1", 2),))


def test_a_newcomer_that_finds_a_gate_open_waits_for_the_next_one() -> None:
    leader = Leader()
    leader.sees(see.ReportsSeen(FIRST, (wish("b"),)))
    leader.comes("x", 1.0)
    leader.asks(7)
    leader.saved()
    leader.asks(7)
    leader.saved(2)
    assert "saved before at step 7" in leader.grown()


def test_who_is_about_to_stop_is_not_started_again_in_the_time() -> None:
    leader = Leader()
    leader.sees(see.ReportsSeen(FIRST, (wish("b", 1, "stop"),)))
    leader.asks(7)
    leader.comes("x", 1.0)
    assert (leader.writes, leader.until) == (None, 61.0)
    leader.passes(61.0)
    assert "nothing was saved" in leader.grown()


def test_a_stop_counts_also_if_something_else_was_decided_after_it() -> None:
    leader = Leader()
    leader.sees(see.ReportsSeen(FIRST, (wish("b", 1, "stop"),)))
    leader.asks(7)
    leader.sees(see.ReportsSeen(FIRST, (wish("b", 1, "stop"), wish("b", 2, "pause"))))
    leader.asks(9)
    leader.comes("x", 1.0)
    assert (leader.writes, leader.until) == (None, 61.0)


def test_a_stop_and_the_checkpoint_at_one_gate_end_as_a_success() -> None:
    leader = Leader()
    leader.sees(see.ReportsSeen(FIRST, (wish("b", 1, "resume"),)))
    leader.comes("x", 1.0)
    stop = wish("b", 2, "stop")
    leader.sees(see.ReportsSeen(FIRST, (wish("b", 1, "resume"), stop)))
    leader.created()
    assert leader.writes.kinds == ("checkpoint", "stop")
    leader.asks(7)
    leader.saved(2)
    assert (leader.writes, leader.until) == (None, 61.0)
    leader.sees(see.WorkersEnded(FIRST, None))
    leader.created()
    succeeded = report("b", ReportKind.SUCCEEDED)
    leader.sees(see.ReportsSeen(FIRST, (wish("b", 1, "resume"), stop, succeeded)))
    assert leader.writes.cause is Cause.SUCCEEDED


def _fails(leader: Leader) -> None:
    failed = report("b", ReportKind.FAILED, job_failure=job_failure())
    leader.sees(see.ReportsSeen(FIRST, (failed,)))


def _is_lost(leader: Leader) -> None:
    leader.sees(see.MembersSeen((member("a"), member("x"))))


def _stops(leader: Leader) -> None:
    leader.sees(see.EndRequested("enough", stop=True))
    leader.sees(see.WorkersStopped(FIRST))


@pytest.mark.parametrize(
    ("ends", "cause"),
    [(_fails, Cause.FAILED), (_is_lost, Cause.LOST), (_stops, Cause.STOPPED)],
)
def test_a_round_that_ends_otherwise_meanwhile_ends_so(
    ends: Callable[[Leader], None], cause: Cause
) -> None:
    leader = asked()
    ends(leader)
    assert leader.writes.cause is cause


def test_a_success_meanwhile_lets_nobody_in() -> None:
    leader = asked()
    leader.sees(see.ReportsSeen(FIRST, (report("b", ReportKind.SUCCEEDED),)))
    leader.saved()
    leader.passes(100.0)
    assert (leader.writes, leader.until) == (None, float("inf"))


def test_a_leader_whose_workers_are_gone_waits_for_nothing() -> None:
    leader = asked()
    leader.sees(see.EndRequested("its host is needed", stop=False, linger=float("inf")))
    assert "nothing was saved: no workers of the leader run" in leader.grown()


def test_what_is_said_of_another_gate_or_round_counts_for_nothing() -> None:
    leader = asked()
    leader.sees(see.CheckpointSaved(Stage(1, 2), 1))
    leader.sees(see.CheckpointSaved(FIRST, 2, "no space left"))
    assert (leader.writes, leader.until) == (None, 61.0)


def test_a_wish_of_the_leader_itself_is_heard_beside() -> None:
    leader = Leader()
    leader.comes("x", 1.0)
    leader.sees(see.WishMade(frozenset({WishKind.PAUSE}), "somebody asked"))
    leader.asks(7)
    gate = leader.writes
    assert isinstance(gate, Gate)
    assert (gate.number, gate.kinds, gate.heard) == (2, ("pause",), (("a.1", 1),))
