"""Who waits for another part of a stop is more patient than that part can take."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import llutil
from llutil.launcher.config import LaunchConfig
from llutil.time_budgets import (
    DEFAULT_GRACE_PERIOD,
    HELPER_ENDED,
    KILLED,
    LEDGER_CLOSED,
    LEDGER_LEFT,
    StopBudget,
)

HOME = str(Path(llutil.__file__).parents[1])
GRACE_PERIODS = st.one_of(st.just(0.0), st.just(DEFAULT_GRACE_PERIOD), st.floats(0, 1e6))
MANY = settings(derandomize=True, max_examples=300, deadline=None)


@MANY
@given(GRACE_PERIODS)
def test_an_agent_has_time_to_tell_how_its_job_ended_before_its_last_resort(
    grace_period: float,
) -> None:
    """Each step takes as long as it may: the ranks, the kernel, the ledger, the two helpers."""
    budget = StopBudget(grace_period)
    steps = grace_period + KILLED + LEDGER_LEFT + LEDGER_CLOSED + 2 * HELPER_ENDED
    assert steps <= budget.agent < budget.last_resort


@MANY
@given(GRACE_PERIODS)
def test_ranks_that_do_not_end_at_a_step_have_time_after_their_signal(grace_period: float) -> None:
    budget = StopBudget(grace_period)
    assert 0 <= budget.in_order <= grace_period
    assert grace_period - budget.in_order >= min(grace_period / 5, 5.0)


@MANY
@given(GRACE_PERIODS)
def test_the_task_is_more_patient_than_an_agents_last_resort_takes(grace_period: float) -> None:
    budget = StopBudget(grace_period)
    assert budget.task > budget.last_resort + KILLED


@MANY
@given(GRACE_PERIODS)
def test_a_next_try_is_more_patient_than_a_task_that_kills_its_agent(grace_period: float) -> None:
    """The guardian ends what such an agent leaves, which takes as long as a kill may take."""
    budget = StopBudget(grace_period)
    assert budget.earlier_try > budget.task + KILLED


@MANY
@given(GRACE_PERIODS)
def test_a_pod_lives_for_longer_than_a_task_that_kills_its_agent(grace_period: float) -> None:
    budget = StopBudget(grace_period)
    assert budget.pod > budget.task + KILLED


@MANY
@given(GRACE_PERIODS)
def test_a_pod_that_preflight_accepts_leaves_the_whole_grace_period(grace_period: float) -> None:
    budget = StopBudget(grace_period)
    assert grace_period < budget.settled < budget.agent


@pytest.mark.parametrize(
    ("page", "text"),
    [
        ("retries.md", f"the grace period and {StopBudget(0).earlier_try:g} seconds at most"),
        ("retries.md", f"the grace period and {StopBudget(0).settled:g} seconds if"),
        ("kubernetes.md", f"`terminationGracePeriodSeconds` becomes {StopBudget(0).pod:g} s more"),
        ("kubernetes.md", f"more than the job: {StopBudget(0).pod:g} s more"),
        ("kubernetes.md", f"less than {StopBudget(0).settled:g} s of them"),
        ("preflight.md", f"{StopBudget(0).settled:g} s of it are for the end of the job itself"),
    ],
)
def test_the_pages_for_users_have_these_numbers(page: str, text: str) -> None:
    assert text in " ".join(Path(HOME, "docs", page).read_text().split())


def test_the_architectures_page_has_all_of_them() -> None:
    page = Path(HOME, "docs", "architecture.md").read_text()
    rows = re.findall(r"^\| `(\w+)` \| (\d+) \|", page, re.MULTILINE)
    names = {name for name, kind in vars(StopBudget).items() if isinstance(kind, property)}
    assert {name: float(seconds) for name, seconds in rows} == {
        name: getattr(StopBudget(0), name) for name in {*names, "grace_period"}
    }


def test_torchs_name_for_the_grace_period_has_the_same_default() -> None:
    assert LaunchConfig(1, 1, 1).shutdown_timeout == DEFAULT_GRACE_PERIOD


def test_it_imports_nothing_so_that_a_guardian_can_read_it() -> None:
    code = (
        f"import sys; sys.path.append({HOME!r}); import llutil; before = set(sys.modules); "
        "import llutil.time_budgets; print(*sorted(set(sys.modules) - before))"
    )
    run = [sys.executable, "-I", "-S", "-c", code]
    found = subprocess.run(run, capture_output=True, text=True, check=True, timeout=60)
    assert found.stdout.split() == ["llutil.time_budgets"]
