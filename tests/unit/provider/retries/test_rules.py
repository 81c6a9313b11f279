"""What follows a failure: the table, row by row."""

from __future__ import annotations

import pytest

from airflow_provider.retries.policy import ElasticRetryPolicy
from airflow_provider.retries.rules import RetryRow, TriesRecord, decide
from llutil.errors import ConfigError
from llutil.failure import FailureClass, JobFailure
from tests.support.rendezvous_values import failure

POLICY = ElasticRetryPolicy()


def case(failure_class: FailureClass, *, like: str = "") -> JobFailure:
    told = failure(failure_class=failure_class, trace=like)
    return JobFailure(why="what happened", failure_class=failure_class, failure=told)


def tries_until_it_fails(*cases: JobFailure) -> int:
    """How many tries there are if each fails in the way of the next of ``cases``, and the last of
    them goes on.
    """
    record, tries = TriesRecord(), 0
    while True:
        one = cases[min(tries, len(cases) - 1)]
        tries += 1
        decision = decide(POLICY.row(one.failure_class), record, one, tries_left=100)
        if not decision.again or tries == 50:
            return tries
        record = decision.record


@pytest.mark.parametrize(
    ("failure_class", "tries"),
    [
        (FailureClass.BAD_CONFIGURATION, 1),
        (FailureClass.OUT_OF_MEMORY, 2),
        (FailureClass.HANG, 3),
        (FailureClass.INFRASTRUCTURE, 6),
        (FailureClass.PREEMPTION, 11),
        (FailureClass.USER_CODE, 50),  # as the task's retries say
    ],
)
def test_each_class_has_so_many_tries_by_default(failure_class: FailureClass, tries: int) -> None:
    assert tries_until_it_fails(case(failure_class)) == tries


def test_budgets_are_each_classes_own() -> None:
    hang, memory = case(FailureClass.HANG), case(FailureClass.OUT_OF_MEMORY)
    assert tries_until_it_fails(memory, hang, hang, memory) == 4
    assert tries_until_it_fails(hang, memory, hang, hang) == 4


def test_no_class_has_more_tries_than_the_task() -> None:
    for failure_class in FailureClass:
        decision = decide(RetryRow(), TriesRecord(), case(failure_class), tries_left=0)
        assert not decision.again
        assert "all retries of the task are used up" in decision.why
        assert decision.record.retried == {}


@pytest.mark.parametrize(
    ("cases", "tries"),
    [
        (["a", "a"], 2),
        (["a", "b", "a", "b", "b"], 5),
        (["a", "", "a", "a"], 4),
        (["", "", "", "a", "a"], 5),
    ],
)
def test_the_same_traceback_twice_running_before_any_step_fails_for_good(
    cases: list[str], tries: int
) -> None:
    assert tries_until_it_fails(*(case(FailureClass.USER_CODE, like=one) for one in cases)) == tries


def test_another_failure_in_between_breaks_the_run_of_equal_ones() -> None:
    user, lost = case(FailureClass.USER_CODE, like="a"), case(FailureClass.INFRASTRUCTURE)
    assert tries_until_it_fails(user, lost, user, lost, user, user) == 6


def test_every_decision_says_why() -> None:
    first = decide(POLICY.hang, TriesRecord(), case(FailureClass.HANG), tries_left=3)
    assert first.why == (
        "hang (what happened): tried again in 60 s: retry 1 of 2 of its class; "
        "3 of the task's retries are left with this one"
    )
    raised = case(FailureClass.USER_CODE, like="a")
    own = decide(POLICY.user_code, TriesRecord(), raised, tries_left=1)
    assert own.why == (
        "user code (what happened): tried again after the task's retry_delay: retry 1 of its "
        "class; "
        "1 of the task's retries is left with this one"
    )
    last = decide(POLICY.user_code, own.record, raised, tries_left=9)
    assert "not tried again: the same traceback 2 times in a row" in last.why
    wrong = case(FailureClass.BAD_CONFIGURATION)
    none = decide(POLICY.bad_configuration, TriesRecord(), wrong, tries_left=9)
    assert none.why == "bad configuration (what happened): not tried again: its class has none"
    used = TriesRecord(retried={"hang": 2})
    spent = decide(POLICY.hang, used, case(FailureClass.HANG), tries_left=9)
    assert "all retries of its class (2) are used up" in spent.why


@pytest.mark.parametrize(
    ("row", "delays"),
    [
        (RetryRow(), [None, None]),
        (RetryRow(delay=60), [60, 60]),
        (RetryRow(delay=30, growth=2, longest=100), [30, 60, 100, 100]),
        (RetryRow(delay=0, growth=2), [0, 0]),
    ],
)
def test_delays_grow_up_to_the_longest(row: RetryRow, delays: list[float | None]) -> None:
    assert [row.delay_after(retried) for retried in range(len(delays))] == delays


def test_a_delay_that_has_grown_beyond_all_numbers_is_the_longest() -> None:
    assert RetryRow(delay=1, growth=10, longest=600).delay_after(100_000) == 600


def test_a_row_that_cannot_be_is_refused_with_all_that_is_wrong() -> None:
    with pytest.raises(ConfigError) as caught:
        RetryRow(retries=-1, delay=-1, growth=0.5, longest=float("inf"), alike=1)
    assert [problem.field for problem in caught.value.problems] == [
        "RetryRow.retries",
        "RetryRow.delay",
        "RetryRow.growth",
        "RetryRow.longest",
        "RetryRow.alike",
    ]
    with pytest.raises(ConfigError, match="retries is True"):
        RetryRow(retries=True)
    with pytest.raises(ConfigError, match=r"hang is 3; wanted a RetryRow"):
        ElasticRetryPolicy(hang=3)  # type: ignore[arg-type]


def test_a_clear_begins_a_new_life_with_fresh_budgets() -> None:
    record = TriesRecord(life=3, retried={"hang": 2}, try_number=4, open=True)
    assert record.in_life(3) == record
    assert record.in_life(7) == TriesRecord(life=7)


def test_a_record_survives_its_way_through_the_store() -> None:
    record = TriesRecord(life=3, retried={"hang": 2}, signature="a", alike=1).begun(2, "here", 1)
    assert TriesRecord.from_json(record.to_json()) == record


@pytest.mark.parametrize(
    "value",
    [
        None,
        1,
        [],
        {},
        {"version": 1},
        {"version": 2},
        {"version": 2, "retried": []},
        {**TriesRecord().to_json(), "try_number": "1"},
        {**TriesRecord().to_json(), "alike": None},
        {**TriesRecord().to_json(), "open": 1},
        {**TriesRecord().to_json(), "retried": {"infrastructure": "many"}},
        {**TriesRecord().to_json(), "retried": {"infrastructure": None}},
    ],
)
def test_what_is_no_record_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match="wanted a record"):
        TriesRecord.from_json(value)
