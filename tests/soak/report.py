"""The figures of a soak, as text.

This module may import nothing but the standard library and its neighbours here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from statistics import median

from tests.soak.faults import Strike
from tests.soak.jobs import Job
from tests.soak.plan import Fault, Kind
from tests.soak.records import useful_seconds
from tests.soak.verdict import JobRecord, values_lost

__all__ = ["report"]


def report(
    jobs: Sequence[Job],
    records: Sequence[JobRecord],
    strikes: Sequence[Strike],
    without_victim: Sequence[Fault],
    recoveries: Mapping[Kind, Sequence[float]],
) -> Iterator[str]:
    """The lines: faults by kind with the times to recover, jobs by outcome, goodput."""
    struck = Counter(strike.fault.kind for strike in strikes)
    yield f"{len(strikes)} faults ({len(without_victim)} more found nobody to strike)"
    yield f"  {'':42} faults  seconds until jobs trained again: median, most (of)"
    for kind in Kind:
        if not struck[kind]:
            continue
        times = recoveries.get(kind, ())
        told = f"{median(times):5.1f} {max(times):5.1f} ({len(times)})" if times else "    -"
        yield f"  {kind:42} {struck[kind]:6}  {told}"
    ends = Counter(
        (record.plan.kind, record.state, _tried(record.tasks[0].tries if record.tasks else 0))
        for record in records
    )
    yield f"{len(records)} jobs"
    for (kind, state, tries), count in sorted(ends.items()):
        yield f"  {kind:24} {state:10} {tries:16} {count:4}"
    if lost := sum(map(values_lost, records)):
        yield f"{lost} gangs succeeded, and lost a node's agent or task before its values came"
    training = [
        (job, record)
        for job, record in zip(jobs, records, strict=True)
        if record.plan.trains and record.state == "success"
    ]
    useful = sum(useful_seconds(record.rounds) for _, record in training)
    wall = sum(job.seconds for job, _ in training)
    lives = sum(len(record.rounds) for _, record in training)
    share = useful / wall if wall else 0.0
    yield (
        f"goodput of {len(training)} trainings: {useful:.0f} s of steps that counted in {wall:.0f} "
        f"s of jobs, {100 * share:.0f} %; {lives} rounds"
    )


def _tried(tries: int) -> str:
    return "in its first try" if tries <= 1 else "in a later try"
