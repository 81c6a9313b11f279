"""The verdict on a soak finds what is wrong with a job, and what is left on hosts and in etcd."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from llutil.testing.history import RankHistory, Round
from tests.soak.leftovers import HostState, left_in_etcd, left_on
from tests.soak.plan import JobPlan
from tests.soak.verdict import JobRecord, TaskRecord, problems_of_jobs


def one_round(name: str, first: int, *samples: list[list[int]]) -> Round:
    """A round whose ranks had these samples in each step."""
    ranks = tuple(
        RankHistory(
            rank=rank,
            node=0,
            steps=tuple(range(first, first + len(steps))),
            samples=tuple(((0, tuple(some)),) for some in steps),
            struck=(),
        )
        for rank, steps in enumerate(samples)
    )
    return Round(name=name, world=len(samples), ranks=ranks)


TRAINED = JobRecord(
    plan=JobPlan(number=3, kind="single", samples=8),
    state="success",
    tasks=(TaskRecord(state="success"),),
    rounds=(
        one_round("1", 1, [[0], [2], [4]], [[1], [3], [5]]),
        one_round("2", 3, [[4], [6]], [[5], [7]]),  # step 3 again, from the checkpoint of step 2
    ),
    struck=("4 (SIGKILL: rank)",),
)
FAILED = JobRecord(
    plan=JobPlan(number=4, kind="fails_by_exit", samples=8),
    state="failed",
    tasks=(
        TaskRecord(
            state="failed",
            failure="user code",
            why="rank 1: SystemExit: the function called sys.exit(17) and returned no value",
        ),
    ),
    rounds=(one_round("1", 1, [[0], [2]], [[1], [3]]),),
)


def problems(record: JobRecord, **changed: Any) -> list[str]:
    return [*problems_of_jobs([replace(record, **changed)])]


def test_jobs_that_ended_as_planned_have_no_problem() -> None:
    assert [*problems_of_jobs([TRAINED, FAILED])] == []


def test_a_training_that_did_not_succeed_is_wrong_and_its_faults_are_named() -> None:
    for state in ("failed", "unfinished"):
        (told,) = problems(TRAINED, state=state)
        assert told.startswith(f"job 3 (single): it is {state}, planned was success")
        assert told.endswith("struck by 4 (SIGKILL: rank)")


def test_a_job_that_has_to_fail_and_succeeds_is_wrong() -> None:
    (told,) = problems(FAILED, state="success")
    assert "it is success, planned was failed" in told


@pytest.mark.parametrize(
    "changed",
    [{"failure": "infrastructure"}, {"failure": ""}, {"why": "exit code 17"}, {"state": "success"}],
)
def test_a_failure_of_another_class_or_for_another_reason_is_wrong(changed: Any) -> None:
    tasks = (*FAILED.tasks, replace(FAILED.tasks[0], **changed))
    assert len(problems(FAILED, tasks=tasks)) == 1


def test_a_node_whose_next_try_finds_its_sibling_failed_needs_no_class_of_its_own() -> None:
    late = TaskRecord(state="failed", tries=2)
    assert problems(FAILED, tasks=(*FAILED.tasks, late)) == []
    assert len(problems(FAILED, tasks=(late,))) == 1
    assert len(problems(FAILED, tasks=(*FAILED.tasks, replace(late, failure="hang")))) == 1


LOST = JobRecord(
    plan=JobPlan(number=5, kind="lockstep", samples=8),
    state="failed",
    tasks=(
        TaskRecord(state="success"),
        TaskRecord(
            state="failed",
            tries=2,
            failure="result",
            why="the job has succeeded on node 0 and on this node, 1: an earlier try had 1 of its "
            "ranks, and ended before it could hand on what they returned.",
        ),
    ),
    rounds=TRAINED.rounds,
    struck=("6 (SIGKILL: task process)",),
)


def test_a_gang_that_lost_a_task_after_its_success_may_fail_by_that_alone() -> None:
    assert problems(LOST) == []
    assert "left out" in "".join(problems(LOST, rounds=LOST.rounds[:1]))


@pytest.mark.parametrize(
    "changed",
    [
        {"struck": ()},
        {"struck": ("6 (SIGKILL: rank)",)},
        {"tasks": (replace(LOST.tasks[0], state="upstream_failed"), LOST.tasks[1])},
        {"tasks": (LOST.tasks[0], replace(LOST.tasks[1], failure="user code"))},
        {"tasks": (LOST.tasks[1], replace(LOST.tasks[1], why="a result is missing"))},
    ],
)
def test_any_other_failure_of_a_gang_that_trains_is_wrong(changed: Any) -> None:
    (told,) = problems(LOST, **changed)
    assert "it is failed, planned was success" in told


def test_a_sample_that_counts_twice_is_wrong() -> None:
    twice = (TRAINED.rounds[0], one_round("2", 3, [[4], [6]], [[5], [6, 7]]))
    (told,) = problems(TRAINED, rounds=twice)
    assert "1 samples counted more than once, as [6]" in told


def test_a_sample_that_only_steps_which_were_done_again_had_is_left_out() -> None:
    without = (TRAINED.rounds[0], one_round("2", 3, [[], [6]], [[5], [7]]))
    (told,) = problems(TRAINED, rounds=without)
    assert "1 of 8 samples were left out, as [4]" in told


def test_a_sample_of_another_job_is_wrong() -> None:
    strange = (TRAINED.rounds[0], one_round("2", 3, [[4], [6, 99]], [[5], [7]]))
    (told,) = problems(TRAINED, rounds=strange)
    assert "none of its own, as [99]" in told


def test_a_job_that_fails_may_leave_samples_out_and_none_may_count_twice() -> None:
    twice = (one_round("1", 1, [[0], [2]], [[1], [2]]),)
    (told,) = problems(FAILED, rounds=twice)
    assert "1 samples counted more than once, as [2]" in told


def test_steps_that_are_lost_or_not_counted_one_by_one_are_wrong() -> None:
    lost = (TRAINED.rounds[0], one_round("2", 5, [[4, 6]], [[5, 7]]))
    assert "began at step 5 after step 3" in "".join(problems(TRAINED, rounds=lost))
    first, second = TRAINED.rounds[1].ranks
    jumped = replace(TRAINED.rounds[1], ranks=(replace(first, steps=(3, 5)), second))
    told = problems(TRAINED, rounds=(TRAINED.rounds[0], jumped))
    assert "rank 0 of its round 2 did not count its steps one by one" in told[0]


EMPTY = HostState(
    name="worker-0",
    processes={10: "celery", 11: "pool"},
    own={10, 11, 12},
    listeners=[],
    files=[],
)


def test_a_host_with_airflows_own_processes_has_nothing_left() -> None:
    assert [*left_on(EMPTY, [])] == []


def test_a_process_and_a_port_that_are_left_are_named() -> None:
    host = replace(EMPTY, processes={**EMPTY.processes, 99: "a rank"}, listeners=["0:1F90"])
    assert [*left_on(host, [])] == ["process 99 on worker-0: a rank", "worker-0 listens at 0:1F90"]


@pytest.mark.parametrize(
    ("name", "stays"),
    [
        ("tmp/elastic-launch-0/logs-abc", True),
        ("tmp/elastic-launch-0/fails_by_result.job.job-9-x.try_1.results", True),
        ("tmp/elastic-launch-0/single.job.job-7-x.agent_record", True),
        ("tmp/elastic-launch-0/single.job.job-8-x.agent_record", False),
        ("shm/llutil-events-abc", False),
        ("shm/llutil-0/123.abc.single", False),
    ],
)
def test_a_file_is_left_unless_it_is_kept_for_people_or_for_a_next_try(
    name: str, stays: bool
) -> None:
    found = [*left_on(replace(EMPTY, files=[Path("/host", name)]), ["job-7"])]
    assert found == ([] if stays else [f"file /host/{name}"])


def test_members_and_keys_without_a_lease_are_left_in_etcd() -> None:
    leases = {"/soak/a/rounds/1": 7, "/soak/a/members/1": 7, "/soak/a/marker": 0}
    assert [*left_in_etcd(leases)] == [
        "in etcd: /soak/a/members/1",
        "in etcd: /soak/a/marker, without a lease",
    ]
