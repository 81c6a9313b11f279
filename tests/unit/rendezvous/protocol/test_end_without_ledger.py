"""What a node may conclude from what it knows itself, if the ledger takes no word of it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from llutil.rendezvous.protocol.end_without_ledger import end_without_ledger
from llutil.rendezvous.protocol.instructions import Create, FinishedWell, GaveUp, ReadBack
from llutil.rendezvous.protocol.records import Cause, Record, Report, ReportKind
from llutil.rendezvous.protocol.round_reports import RoundReports
from llutil.rendezvous.protocol.run_history import RunHistory
from llutil.rendezvous.protocol.state import State, WorkersState
from tests.support.rendezvous_values import job_failure, member, report, round_of, rules, verdict

_GAVE_UP = GaveUp("the ledger took nothing")
_OWN = report("a", ReportKind.SUCCEEDED)
_FAILED = report("a", ReportKind.FAILED, job_failure=job_failure())
_SUCCESS = verdict(Cause.SUCCEEDED, final=True)


def _state(names: str, *ends: Report, outcome: Report | None = _OWN, **others: Any) -> State:
    """Node a's view in a round of ``names``, of which it leads; ``ends`` are in the ledger."""
    running = round_of(names)
    return State(
        parameters=rules(1, others.pop("most", 4)),
        profile=member("a", node=""),
        node="a.1",
        leased=True,
        joined=True,
        log=others.pop("log", RunHistory(running)),
        own_round=running,
        workers=WorkersState.ENDED,
        outcome=outcome,
        log_read_as_leader=True,
        members=tuple(member(name) for name in names),
        reports=RoundReports.of(running.nodes, ends),
        **others,
    )


def _writes(record: Record) -> Create:
    return Create(1, (record,), "because")


@pytest.mark.parametrize(
    "state",
    [
        _state("a"),
        _state("a", _OWN),
        _state("a", unanswered_write=_writes(_OWN)),
        _state("a", unanswered_write=_writes(_SUCCESS)),
        _state("a", unanswered_write=_writes(_OWN), pending=ReadBack(2, _OWN, "because")),
        _state("ab", _OWN, report("b", ReportKind.SUCCEEDED)),
        _state("ab", _OWN, report("b", ReportKind.SUCCEEDED), pending=_writes(_SUCCESS)),
    ],
)
def test_a_job_has_succeeded_if_no_verdict_could_say_anything_else(state: State) -> None:
    end = end_without_ledger(state, _GAVE_UP, now=5.0)
    assert isinstance(end, FinishedWell)
    assert not end.recorded
    assert end.why.endswith(_GAVE_UP.why)


@pytest.mark.parametrize(
    "state",
    [
        _state("ab"),
        _state("ab", _OWN),
        _state("ab", report("b", ReportKind.SUCCEEDED)),
        _state("ab", _OWN, report("b", ReportKind.FAILED)),
        _state("ab", _OWN, older_members=("b.1",)),
        replace(
            _state("ab", _OWN, report("b", ReportKind.SUCCEEDED)),
            log_read_as_leader=False,
        ),
        _state("a", unanswered_write=_writes(verdict(Cause.GROWN))),
        _state("a", pending=_writes(verdict(Cause.GROWN))),
        _state("a", log=RunHistory(round_of("a"), verdict(Cause.GROWN))),
        _state(
            "ab",
            _OWN,
            report("b", ReportKind.SUCCEEDED),
            unanswered_write=_writes(verdict(Cause.LOST)),
        ),
    ],
)
def test_a_node_claims_no_success_that_another_verdict_may_deny(state: State) -> None:
    assert end_without_ledger(state, _GAVE_UP, now=5.0) == replace(_GAVE_UP, outcome=_OWN)


@pytest.mark.parametrize("most", [1, 4])
def test_a_lease_that_may_be_over_leaves_a_success_only_in_a_job_of_one_node(most: int) -> None:
    end = end_without_ledger(_state("a", most=most), _GAVE_UP, now=100.0)
    assert isinstance(end, FinishedWell) == (most == 1)


@pytest.mark.parametrize("names", ["a", "ab"])
def test_a_failure_is_told(names: str) -> None:
    end = end_without_ledger(_state(names, outcome=_FAILED), _GAVE_UP, now=5.0)
    assert end == replace(_GAVE_UP, outcome=_FAILED)


def test_a_node_without_workers_has_nothing_to_tell() -> None:
    state = replace(_state("a", outcome=None), own_round=None)
    assert end_without_ledger(state, _GAVE_UP, now=5.0) == _GAVE_UP
