"""What the leader decides on a gate: a table of answers, and of what becomes of them."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec import structs

from llutil.rendezvous.protocol.gate_decision import (
    GateInput,
    decide_at_once,
    decide_gate,
    gate_for,
)
from llutil.rendezvous.protocol.gate_history import GateHistory
from llutil.rendezvous.protocol.gate_records import Gate, GateAnswer, GateDecision, merged
from llutil.rendezvous.protocol.records import Stage
from llutil.rendezvous.protocol.seal_decision import NotYet
from tests.support.rendezvous_values import answer, decision, gate, wish


def decided(
    asked: Gate, *answers: GateAnswer, now: float = 1.0, **others: Any
) -> GateDecision | NotYet:
    values: dict[str, Any] = {
        "me": "a.1",
        "gate": asked,
        "nodes": frozenset({"a.1", "b.1"}),
        "answers": {one.node: one for one in answers},
        "ended": frozenset(),
        "history": GateHistory(asked),
        "since": 0.0,
        "timeout": 5.0,
    }
    return decide_gate(GateInput(**(values | others)), now)


def at_step(*answers: GateAnswer, asked: Gate | None = None, **others: Any) -> GateDecision:
    found = decided(asked or gate(), *answers, **others)
    assert isinstance(found, GateDecision)
    return found


def test_the_greatest_step_that_anybody_has_begun_is_decided_for() -> None:
    found = at_step(answer("a", 7), answer("b", 8))
    assert (found.step, found.kinds) == (8, ("checkpoint",))


def test_a_node_whose_ranks_have_not_called_step_yet_has_no_say() -> None:
    assert at_step(answer("a", 7), answer("b", None)).step == 7
    found = at_step(answer("a", None), answer("b", None))
    assert (found.step, found.kinds, found.why) == (None, (), "no rank calls step")


def test_a_step_is_never_less_than_the_one_before() -> None:
    history = GateHistory(gate(2), decision(9), decision(9))
    assert at_step(answer("a", 7, 2), answer("b", 8, 2), asked=gate(2), history=history).step == 9


def test_an_answer_is_waited_for_so_long_and_then_missed_by_name() -> None:
    waits = decided(gate(), answer("a", 7), now=4.9)
    assert isinstance(waits, NotYet)
    assert (waits.until, "b.1" in waits.why) == (5.0, True)
    found = at_step(answer("a", 7), now=5.0)
    assert (found.step, found.kinds) == (None, ())
    assert found.why == "b.1 did not answer within 5 s"


def test_all_answers_that_are_read_too_late_decide_nothing() -> None:
    assert at_step(answer("a", 7), answer("b", 8), now=5.0).step is None


def test_a_refusal_ends_it_at_once() -> None:
    found = at_step(answer("b", None, refusal="no page"))
    assert (found.step, found.why) == (None, "b.1: no page")


def test_who_has_ended_does_not_answer_and_leaves_no_checkpoint() -> None:
    ended = frozenset({"b.1"})
    both = at_step(answer("a", 7), asked=gate(1, "checkpoint", "stop"), ended=ended)
    assert (both.step, both.kinds) == (7, ("stop",))
    assert "b.1" in both.why
    alone = at_step(answer("a", 7), ended=ended)
    assert (alone.step, alone.kinds) == (None, ())
    assert "no checkpoint" in alone.why


def test_a_gate_of_an_earlier_leader_is_cancelled() -> None:
    found = at_step(answer("a", 7), answer("b", 8), asked=gate(by="c.1"), since=None)
    assert (found.step, found.by) == (None, "a.1")
    assert "c.1" in found.why


def test_every_decision_tells_of_the_newest_resume() -> None:
    together = gate(2, "checkpoint", "resume")
    done = at_step(answer("a", 7, 2), answer("b", 7, 2), asked=together)
    assert (done.kinds, done.resumed) == (("checkpoint",), 2)
    missed = at_step(asked=together, now=5.0)
    assert (missed.kinds, missed.resumed) == ((), 2)
    later = GateHistory(gate(3), decision(None, 2, resumed=2))
    assert at_step(asked=gate(3), history=later, now=5.0).resumed == 2
    assert decide_at_once(gate(4, "resume"), GateHistory()).resumed == 4


def test_every_decision_says_whether_a_rank_is_debugged() -> None:
    begun = decide_at_once(gate(1, "debugger_start"), GateHistory())
    assert (begun.kinds, begun.step, begun.debugged) == ((), None, True)
    since = GateHistory(gate(2), begun)
    assert at_step(answer("a", 7, 2), answer("b", 7, 2), asked=gate(2), history=since).debugged
    assert at_step(asked=gate(2), history=since, now=5.0).debugged
    assert not decide_at_once(gate(2, "debugger_end"), since).debugged
    assert decide_at_once(gate(2, "resume"), since).debugged
    missed = at_step(asked=gate(2, "checkpoint", "debugger_end"), history=since, now=5.0)
    assert (missed.kinds, missed.debugged) == ((), False)


def test_every_decision_tells_of_the_newest_wish_for_stacks() -> None:
    asked = decide_at_once(gate(2, "stacks"), GateHistory())
    assert (asked.kinds, asked.step, asked.stacks) == ((), None, 2)
    since = GateHistory(gate(3), asked)
    assert at_step(answer("a", 7, 3), answer("b", 7, 3), asked=gate(3), history=since).stacks == 2
    assert at_step(asked=gate(3), history=since, now=5.0).stacks == 2
    together = gate(3, "checkpoint", "stacks")
    assert at_step(asked=together, history=since, now=5.0).stacks == 3


@pytest.mark.parametrize("kind", ["stop", "checkpoint"])
def test_a_decision_says_whether_the_platform_asked(kind: str) -> None:
    told = (answer("a", 7), answer("b", 8))
    assert at_step(*told, asked=gate(1, kind, preempted=True)).preempted
    assert not at_step(*told, asked=gate(1, kind)).preempted


def test_a_stop_that_somebody_asks_for_is_none_of_the_platforms() -> None:
    asked = (wish("a", 1, "stop"), structs.replace(wish("b"), preempted=True))
    for wishes in (asked, asked[::-1]):
        found = merged(wishes)
        assert found is not None
        assert not found.preempted
    found = merged((wish("a"), asked[1]))
    assert found is not None
    assert found.preempted


def test_wishes_that_no_gate_has_heard_make_the_next_one() -> None:
    stage = Stage(1, 1)
    first = gate_for("a.1", stage, GateHistory(), [wish("b"), wish("c", 1, "stop")])
    assert first is not None
    assert (first.number, first.kinds) == (1, ("checkpoint", "stop"))
    assert first.heard == (("b.1", 1), ("c.1", 1))
    history = GateHistory(first)
    assert gate_for("a.1", stage, history, [wish("b"), wish("c", 1, "stop")]) is None
    second = gate_for("d.1", stage, history, [wish("b"), wish("b", 2, "pause"), wish("c")])
    assert second is not None
    assert (second.number, second.kinds, second.by) == (2, ("pause",), "d.1")
    assert second.heard == (("b.1", 2), ("c.1", 1))
