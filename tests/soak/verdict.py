"""What is wrong with what jobs did: their ends, their classes and reasons, their samples and steps.

``JobRecord`` is what is known of a job. These functions decide, and read nothing. This module may
import nothing but the standard library, ``llutil.testing.history`` and ``plan``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from llutil.testing.history import Round, counted_samples
from tests.soak.plan import ALLOWED, JobPlan, Outcome

__all__ = ["PLANNED", "JobRecord", "TaskRecord", "problems_of_jobs", "values_lost"]


@dataclass(frozen=True, slots=True)
class Planned:
    """How a job has to end: the class of its failure and what is in its reason, if it has to
    fail.
    """

    state: str
    failure: str = ""
    why: str = ""


_LOST = "ended before it could hand on what they returned"
_SUCCESS = Planned("success")
PLANNED = {
    "lockstep": _SUCCESS,
    "elastic": _SUCCESS,
    "single": _SUCCESS,
    "fails_as_gang": Planned("failed", "user code", "ValueError: the soak's own error"),
    "fails_by_exception": Planned("failed", "user code", "ValueError: the soak's own error"),
    "fails_by_exit": Planned("failed", "user code", "SystemExit: the function called sys.exit(17)"),
    "fails_by_memory": Planned("failed", "out of memory", "MemoryError"),
    "fails_by_hang": Planned("failed", "hang", "RankHangsError"),
    "fails_by_result": Planned("failed", "result", "a result is missing"),
    "fails_by_configuration": Planned("failed", "bad configuration", "'there_is_none'"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskRecord:
    """How a task of a job ended, after so many tries. ``failure`` is the class that its state in
    Airflow tells, and ``why`` the reason.
    """

    state: str
    tries: int = 1
    failure: str = ""
    why: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobRecord:
    """What became of a job. ``struck`` are the faults that concerned it, in words."""

    plan: JobPlan
    state: str
    tasks: tuple[TaskRecord, ...]
    rounds: tuple[Round, ...]
    struck: tuple[str, ...] = ()
    folder: str = ""


def problems_of_jobs(records: Iterable[JobRecord]) -> Iterator[str]:
    """All that is wrong with them, one line for each."""
    for record in records:
        for problem in (*_of_end(record), *_of_steps(record.rounds), *_of_samples(record)):
            struck = f"; struck by {', '.join(record.struck)}" if record.struck else ""
            yield f"job {record.plan.number} ({record.plan.kind}): {problem}{struck}"


def _of_end(record: JobRecord) -> Iterator[str]:
    planned = PLANNED[record.plan.kind]
    if planned is _SUCCESS and record.state == "failed" and values_lost(record):
        return
    if record.state != planned.state:
        told = "; ".join(f"{one.failure}: {one.why}" for one in record.tasks if one.failure)
        yield f"it is {record.state}, planned was {planned.state}: {told}"
        return
    if not planned.failure:
        return
    as_planned = [one for one in record.tasks if _is_as_planned(one, planned)]
    for one in record.tasks:
        if one.state != "failed":
            yield f"a task of a job that has to fail is {one.state}"
        elif as_planned and one.tries > 1 and not one.failure:
            continue  # its try began after its sibling had failed, and said just that
        elif one not in as_planned and not _has_lost_values(record, one):
            yield (
                f"it failed by {one.failure or 'no class'}: {one.why!r}; planned was "
                f"{planned.failure}: {planned.why!r}"
            )


def values_lost(record: JobRecord) -> bool:
    """Whether the only tasks of a job that failed are those whose values were lost after its
    success, by a fault that may do that.
    """
    failed = [one for one in record.tasks if one.state == "failed"]
    rest = all(one.state == "success" for one in record.tasks if one not in failed)
    return rest and bool(failed) and all(_has_lost_values(record, one) for one in failed)


def _has_lost_values(record: JobRecord, task: TaskRecord) -> bool:
    may = any(
        f"({kind})" in struck
        for struck in record.struck
        for kind, outcomes in ALLOWED.items()
        if Outcome.VALUES_LOST in outcomes
    )
    return may and task.failure == "result" and _LOST in task.why


def _is_as_planned(task: TaskRecord, planned: Planned) -> bool:
    return task.failure == planned.failure and planned.why in task.why


def _of_steps(rounds: Sequence[Round]) -> Iterator[str]:
    done = 0
    for number, one in enumerate(rounds, 1):
        begun = {rank.steps[0] for rank in one.ranks}
        if len(begun) > 1:
            yield f"the ranks of its round {number} began at different steps: {sorted(begun)}"
        if min(begun) > done + 1:
            yield f"its round {number} began at step {min(begun)} after step {done}"
        for rank in one.ranks:
            wanted = tuple(range(rank.steps[0], rank.steps[0] + len(rank.steps)))
            if rank.steps != wanted:
                yield f"rank {rank.rank} of its round {number} did not count its steps one by one"
        done = max(done, one.last)


def _of_samples(record: JobRecord) -> Iterator[str]:
    """Of a training that came to its end, each sample counts once; of another one, none twice."""
    seen = counted_samples(record.rounds).get(0, {})
    twice = sorted(sample for sample, count in seen.items() if count > 1)
    if twice:
        yield f"{len(twice)} samples counted more than once, as {twice[:5]}"
    ended = record.plan.trains or record.plan.kind == "fails_by_result"
    missing = sorted(set(range(record.plan.samples)).difference(seen)) if ended else []
    if missing:
        yield f"{len(missing)} of {record.plan.samples} samples were left out, as {missing[:5]}"
    strange = sorted(set(seen).difference(range(record.plan.samples)))
    if strange:
        yield f"{len(strange)} samples are none of its own, as {strange[:5]}"
