"""The log is the newest of each kind, in whichever order it was seen, and knows what is open and
what is over.
"""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llutil.rendezvous.protocol.records import Cause, Record, ReportKind, Stage
from llutil.rendezvous.protocol.run_history import RunHistory
from tests.support.rendezvous_values import marker, report, round_of, verdict

HISTORY: list[Record] = [
    round_of("ab"),
    verdict(Cause.FAILED),
    round_of("ab", (1, 2)),
    verdict(Cause.FAILED, (1, 2), final=True),
    marker(Cause.FAILED, (1, 2)),
    round_of("a", (2, 1)),
    verdict(Cause.LOST, (2, 1)),
]


@given(st.integers(0, len(HISTORY)), st.randoms(use_true_random=False))
def test_views_merge_to_the_same_log_in_any_order(length: int, rng: random.Random) -> None:
    known = HISTORY[:length]
    shuffled = [*known, *known]
    rng.shuffle(shuffled)
    one = RunHistory()
    for record in shuffled:
        one = one.merged(RunHistory().with_records([record]))
    assert one == RunHistory().with_records(known)


def test_a_log_that_brings_nothing_new_is_the_same_object() -> None:
    log = RunHistory().with_records(HISTORY)
    assert log.merged(RunHistory().with_records(HISTORY[:3])) is log


STANDINGS = {
    "nothing yet": ([], 1, Stage(1, 0), False),
    "a round runs": (HISTORY[:1], 1, Stage(1, 1), True),
    "between rounds": (HISTORY[:2], 1, Stage(1, 1), False),
    "the second round runs": (HISTORY[:3], 1, Stage(1, 2), True),
    "a final verdict without its marker": (HISTORY[:4], 2, Stage(2, 0), False),
    "over": (HISTORY[:5], 2, Stage(2, 0), False),
    "only the marker is left": (HISTORY[4:5], 2, Stage(2, 0), False),
    "the next generation runs": (HISTORY[:6], 2, Stage(2, 1), True),
    "and is between rounds": (HISTORY[:7], 2, Stage(2, 1), False),
}


@pytest.mark.parametrize(
    ("records", "generation", "stage", "runs"), STANDINGS.values(), ids=STANDINGS.keys()
)
def test_where_a_run_stands(
    records: list[Record], generation: int, stage: Stage, runs: bool
) -> None:
    log = RunHistory().with_records(records)
    assert (log.generation, log.stage, log.running is not None) == (generation, stage, runs)


@pytest.mark.parametrize(
    ("records", "over"),
    [
        (HISTORY[:1], False),
        (HISTORY[:2], True),  # its verdict
        (HISTORY[:1] + HISTORY[2:3], True),  # a later round
        (HISTORY[4:5], True),  # its generation's marker
        (HISTORY[:1] + HISTORY[5:6], True),  # a later generation
    ],
)
def test_a_round_is_over_by_any_sign_of_it(records: list[Record], over: bool) -> None:
    assert RunHistory().with_records(records).is_over(Stage(1, 1)) is over


def test_who_had_a_seat_or_was_away_is_busy_until_it_says_otherwise() -> None:
    last = round_of("ab", away=("c.1",))
    assert RunHistory(assignment=last).busy == {"a.1", "b.1", "c.1"}
    over = RunHistory(marker=marker(Cause.FAILED, nodes=("a.1", "b.1")))
    assert over.busy == {"a.1", "b.1"}


def test_reports_are_no_part_of_the_log() -> None:
    assert RunHistory().with_records([report("a", ReportKind.BACK)]) == RunHistory()
