"""Wishes that are made at once become one; what a log says of gates is the newest of each kind."""

from __future__ import annotations

import itertools

import pytest

from llutil.rendezvous.protocol.gate_history import GateHistory
from llutil.rendezvous.protocol.gate_messages import WishMade
from llutil.rendezvous.protocol.gate_records import Gate, WishKind, merged
from llutil.rendezvous.protocol.records import Cause, Stage
from llutil.rendezvous.protocol.run_history import RunHistory
from tests.support.rendezvous_values import decision, gate, round_of, verdict, wish


def open_gate(log: RunHistory) -> Gate | None:
    """The gate of the round that runs, if it is not decided."""
    assert log.running is not None
    return log.gates.of(log.running.stage).open


@pytest.mark.parametrize(
    ("made", "kinds"),
    [
        ((("stop",), ("checkpoint",)), ("checkpoint", "stop")),
        ((("checkpoint",), ("checkpoint", "pause")), ("checkpoint", "pause")),
        ((("pause",), ("resume",)), ("resume",)),
        ((("resume",), ("pause",)), ("pause",)),
        ((("pause", "checkpoint"), ("resume",), ("stop",)), ("checkpoint", "stop", "resume")),
    ],
)
def test_wishes_are_merged_and_of_pause_and_resume_the_later_counts(
    made: tuple[tuple[str, ...], ...], kinds: tuple[str, ...]
) -> None:
    found = merged(wish("a", number, *each) for number, each in enumerate(made, 1))
    assert found is not None
    assert found.kinds == kinds


@pytest.mark.parametrize("stops", [*itertools.product((False, True), repeat=2)])
def test_a_stop_is_a_preemption_only_if_nobody_else_asked_for_it(stops: tuple[bool, bool]) -> None:
    wishes = [wish("a", n, "stop", preempted=one) for n, one in enumerate(stops, 1)]
    found = merged([*wishes, wish("b", 1, "checkpoint", preempted=True)])
    assert found is not None
    assert found.preempted is all(stops)


def test_no_wish_is_merged_to_none() -> None:
    assert merged([]) is None


def test_a_wish_says_what_for_and_no_two_opposites() -> None:
    with pytest.raises(ValueError, match="wanted one thing or more"):
        WishMade(frozenset(), "x")
    with pytest.raises(ValueError, match="no two opposites"):
        WishMade(frozenset({WishKind.PAUSE, WishKind.RESUME, WishKind.STOP}), "x")


def test_in_whatever_order_it_is_seen_the_newest_of_each_kind_counts() -> None:
    records = [gate(), decision(5), gate(2), decision(None, 2), gate(3)]
    for order in itertools.permutations(records):
        log = RunHistory(round_of("ab")).with_records(order)
        assert log.gates == GateHistory(gate(3), decision(None, 2), decision(5))
        assert open_gate(log) == gate(3)


def test_a_gate_is_open_until_it_is_decided_or_its_round_is_over() -> None:
    log = RunHistory(round_of("ab")).with_records([gate()])
    assert open_gate(log) == gate()
    assert open_gate(log.with_records([decision(None)])) is None
    assert log.with_records([verdict(Cause.LOST)]).running is None
    assert log.gates.of(Stage(1, 2)) == GateHistory()
