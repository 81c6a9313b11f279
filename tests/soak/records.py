"""What jobs did, read from what they and Airflow have written.

This module may import nothing but the standard library, ``llutil.testing.history`` and its
neighbours here.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from llutil.testing.history import Round, rounds_in
from tests.soak.faults import Strike
from tests.soak.jobs import Job
from tests.soak.plan import STEP
from tests.soak.verdict import JobRecord, TaskRecord

__all__ = ["records_of", "useful_seconds"]


def records_of(jobs: Iterable[Job], strikes: Iterable[Strike]) -> list[JobRecord]:
    """What became of each job."""
    struck: dict[str, list[str]] = defaultdict(list)
    for strike in strikes:
        for folder in strike.jobs:
            struck[folder].append(f"{strike.fault.number} ({strike.fault.kind})")
    return [
        JobRecord(
            plan=job.plan,
            state=job.state or "unfinished",
            tasks=tuple(
                TaskRecord(
                    state=str(task["state"]),
                    tries=task["try_number"],
                    failure=(task["failure"] or {}).get("class", ""),
                    why=f"{(task['failure'] or {}).get('why', '')} {task['outcome']}",
                )
                for task in job.tasks
            ),
            rounds=tuple(rounds_in(job.folder)),
            struck=tuple(struck[str(job.folder)]),
            folder=str(job.folder),
        )
        for job in jobs
    ]


def useful_seconds(rounds: Iterable[Round]) -> float:
    """How long the steps took that no later round did again."""
    counted = {step for one in rounds for rank in one.ranks for step in rank.steps}
    return STEP * len(counted)
