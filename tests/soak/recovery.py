"""How long jobs took to recover from a fault.

Of a kill: from then on until a rank that began later has made a step, in each job that it concerns.
Of a fault that lasts: from its end on until each job that trained when it began has made a step. A
job that ends meanwhile has no figure. This module may import nothing but the standard library and
its neighbours here.
"""

from __future__ import annotations

import time
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from tests.soak.faults import Strike
from tests.soak.plan import Kind

__all__ = ["Recoveries"]

_NONE_NEEDED = {Kind.KILL_GUARDIAN, Kind.KILL_SCHEDULER, Kind.KILL_API_SERVER, Kind.KILL_LEADER}
"""Nothing of a training ends with these: what counts is when its next step is made."""


@dataclass(slots=True)
class _Watch:
    strike: Strike
    jobs: set[str]
    recovered: bool = False


class Recoveries:
    """They are told the strikes, and look at the jobs' folders a few times a second."""

    def __init__(self) -> None:
        self.seconds: dict[Kind, list[float]] = defaultdict(list)
        self._open: list[_Watch] = []

    def add(self, strike: Strike) -> None:
        """Watch the jobs that it concerns and that train."""
        training = {job for job in strike.jobs if _newest(job) is not None}
        if training:
            self._open.append(_Watch(strike, training))

    def look(self, running: list[str]) -> None:
        """See who has recovered; ``running`` are the folders of the jobs that run."""
        now = time.monotonic()
        for one in [*self._open]:
            if one.strike.fault.seconds and one.strike.until > now:
                continue
            going = {job for job in one.jobs if _goes_on(one.strike, job)}
            one.recovered |= bool(going)
            one.jobs = (one.jobs - going).intersection(running)
            if not one.jobs:
                self._open.remove(one)
                if one.recovered:
                    self.seconds[one.strike.fault.kind].append(now - _began(one.strike))


def _began(strike: Strike) -> float:
    return strike.until if strike.fault.seconds else strike.at


def _goes_on(strike: Strike, job: str) -> bool:
    newest = _newest(job)
    if newest is None:
        return False
    path, began = newest
    since = _began(strike)
    if not strike.fault.seconds and strike.fault.kind not in _NONE_NEEDED and began < since:
        return False
    # Its name tells the monotonic clock; its time of change is that of the other clock.
    changed = path.stat().st_mtime_ns - time.time_ns() + time.monotonic_ns()
    return changed > 1e9 * since


def _newest(job: str) -> tuple[Path, float] | None:
    """The rank of a job that began last, of those that have made a step, and when it began."""
    paths = sorted(Path(job).glob("*-*-*"), reverse=True)
    return (paths[0], int(paths[0].name.split("-")[0]) / 1e9) if paths else None
