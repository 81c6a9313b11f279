"""Decides from what is seen of the ranks of one node whether one of them may hang.

A rank that has reported progress and does so no longer is *silent*. A silent rank whose processes
use no processor is *idle*: it waits, for other ranks or for what never comes. A rank that never
reported is never taken for a hang.

What is too long is learned from the rank's own past: how long it was silent, and how long it was
idle, before it reported again, and the mean time of a step. There are floors below that, since
nothing has been learned of the first step, the first checkpoint and the first evaluation: one for
an idle rank, and a far longer one for a rank that works, since an evaluation may work for an hour.

Time counts only while it is watched: a machine that was suspended, an agent that was stopped, and a
rank that was stopped or paused are given that time. This module is pure: it imports neither a clock
nor ``os``, and its caller looks at the ranks when ``next_look`` says so.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

__all__ = [
    "AUTO",
    "HangTimeout",
    "HangWatch",
    "Sight",
    "Suspicion",
    "look_period",
    "time_watched",
]

AUTO = "auto"
"""The value of ``hang_timeout`` that means: learned."""

HangTimeout = float | str | None
"""Seconds between two reports of a rank; ``AUTO``; or None: no rank is watched."""

# Seconds. NCCL ends ranks that have waited for 600 s in a collective, and names them, so an idle
# rank must be found before.
_IDLE_FLOOR = 480.0
# Seconds, for a rank that has reported less than _FEW times: it loads, compiles and warms up.
_START_FLOOR, _FEW = 1800.0, 3
# Seconds, for a rank that is inside ``worker.checkpoint``: a slow store may use no processor.
_CHECKPOINT_FLOOR = 1800.0
# Seconds, for a rank that works.
_WORKING_FLOOR = 7200.0
# A limit is so many times the longest time that was seen, and so many times a mean step: of a rank
# that is idle, and of one that works.
_TIMES_LONGEST = 3.0
_IDLE_STEPS, _WORKING_STEPS = 10.0, 100.0
# The share of one CPU that an idle rank uses at most: NCCL's threads look at their work now and
# then. Sending 10 MB/s to an object store takes more.
_IDLE_SHARE = 0.005
# Seconds between two looks at most, and at least; between them, so many looks a timeout.
_LONGEST_PERIOD, _SHORTEST_PERIOD, _LOOKS = 30.0, 0.05, 8
# A node whose ranks only wait for another node leaves the first word to that node, for this share
# of the limit.
_PATIENCE = 0.5


def look_period(timeout: float) -> float:
    """Seconds between two looks at a rank that has ``timeout`` seconds for something."""
    return min(max(timeout / _LOOKS, _SHORTEST_PERIOD), _LONGEST_PERIOD)


def time_watched(passed: float, period: float, *, held: bool) -> float:
    """How much of the ``passed`` seconds between two looks counts: none where a rank is ``held``,
    and where a look came late, by a machine or an agent that stood still, not what is beyond one
    and a half ``period``.
    """
    return 0.0 if held else min(passed, 1.5 * period)


@dataclass(frozen=True, slots=True)
class Sight:
    """What is seen of one rank that runs: ``report`` is (step, heartbeat), or None if it has never
    reported. ``cpu`` is how many seconds of processor time its processes have used so far.
    ``saves`` says that it is inside ``worker.checkpoint``.
    """

    rank: int
    report: tuple[int, int] | None
    cpu: float
    saves: bool = False


@dataclass(frozen=True, slots=True)
class Suspicion:
    """The ranks that may hang, and for how many seconds each has been silent.

    ``only_idle`` says that they are suspected because they are idle: if they wait for a rank that
    works, they do not hang. ``certain`` says that they have been silent for so long that it does
    not matter what they wait for. ``idle`` are all ranks of the node that have been idle for about
    as long as the suspects, those that never report too.
    """

    silent: dict[int, float]
    idle: frozenset[int]
    only_idle: bool
    certain: bool


@dataclass(slots=True)
class _Rank:
    """What is known of one rank in this round; times are in seconds that were watched."""

    report: tuple[int, int] | None
    cpu: float
    reports: int = 0
    silent: float = 0.0
    idle: float = 0.0
    longest_idle: float = 0.0
    saves: bool = False


@dataclass(slots=True)
class _Past:
    """What a rank's reports have taught, in all rounds."""

    silent: float = 0.0
    idle: float = 0.0
    time: float = 0.0
    steps: int = 0

    @property
    def step(self) -> float:
        return self.time / self.steps if self.steps else 0.0


@dataclass(slots=True)
class HangWatch:
    """Watches the ranks of one node. ``next_look`` is when to look at them next; infinity if never.

    ``period`` is how many seconds lie between two looks.
    """

    timeout: HangTimeout
    next_look: float = float("inf")
    period: float = _LONGEST_PERIOD
    _last: float = 0.0
    _ranks: dict[int, _Rank] = field(default_factory=dict)
    _pasts: dict[int, _Past] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not isinstance(self.timeout, str | None):
            self.period = look_period(self.timeout)

    def begin(self, now: float) -> None:
        """New processes run the ranks from ``now`` on. What was learned stays."""
        self._ranks.clear()
        self._last = now
        if self.timeout is not None:
            self.next_look = now + self.period

    def end(self) -> None:
        """No rank runs."""
        self.next_look = float("inf")

    def look(self, now: float, sights: Iterable[Sight], *, held: bool) -> Suspicion | None:
        """Take what is seen of all ranks that run. ``held`` says that somebody holds a rank: a
        pause, a debugger, SIGSTOP.
        """
        passed = now - self._last
        watched = time_watched(passed, self.period, held=held)
        self._last, self.next_look = now, now + self.period
        known, self._ranks = self._ranks, {}
        for sight in sights:
            rank = known.get(sight.rank)
            if rank is None:
                rank = _Rank(sight.report, sight.cpu, reports=int(sight.report is not None))
            else:
                self._take(sight, rank, watched, passed)
            rank.saves = sight.saves
            self._ranks[sight.rank] = rank
        return self._suspicion()

    def acquit(self, ranks: Iterable[int]) -> None:
        """These ranks were idle because they wait for others. Nothing is learned from that."""
        for number in ranks:
            self._ranks[number].idle = self._ranks[number].longest_idle = 0.0

    def limits(self, number: int) -> tuple[float, float]:
        """For how many seconds the rank may be idle, and silent."""
        rank = self._ranks[number]
        floor = _IDLE_FLOOR if rank.reports >= _FEW else _START_FLOOR
        if rank.saves:
            floor = max(floor, _CHECKPOINT_FLOOR)
        past = self._pasts.get(number) or _Past()
        return (
            max(floor, _TIMES_LONGEST * past.idle, _IDLE_STEPS * past.step),
            max(_WORKING_FLOOR, _TIMES_LONGEST * past.silent, _WORKING_STEPS * past.step),
        )

    def _take(self, sight: Sight, rank: _Rank, watched: float, passed: float) -> None:
        worked, rank.cpu = sight.cpu - rank.cpu, sight.cpu
        if sight.report == rank.report:
            rank.silent += watched
            # Where processes have ended, their time may be missing from the sum.
            works = worked < 0 or worked > _IDLE_SHARE * passed
            rank.idle = 0.0 if works else rank.idle + watched
            rank.longest_idle = max(rank.longest_idle, rank.idle)
            return
        if rank.report is not None and sight.report is not None:
            past = self._pasts.setdefault(sight.rank, _Past())
            gap = rank.silent + watched
            past.silent = max(past.silent, gap)
            past.idle = max(past.idle, rank.longest_idle)
            past.time += gap
            past.steps += max(1, sight.report[0] - rank.report[0])
        rank.report = sight.report
        rank.reports += 1
        rank.silent = rank.idle = rank.longest_idle = 0.0

    def _suspicion(self) -> Suspicion | None:
        reporting = {number: one for number, one in self._ranks.items() if one.report is not None}
        if isinstance(self.timeout, float | int):
            over = {n: one.silent for n, one in reporting.items() if one.silent >= self.timeout}
            late = (1 + _PATIENCE) * self.timeout
            certain = any(silent >= late for silent in over.values())
            return self._made(over, self.timeout, only_idle=False, certain=certain)
        over = {n: one.silent for n, one in reporting.items() if one.silent >= self.limits(n)[1]}
        if over:
            return self._made(over, _IDLE_FLOOR, only_idle=False, certain=True)
        idle = {n: one.silent for n, one in reporting.items() if one.idle >= self.limits(n)[0]}
        return self._made(idle, _IDLE_FLOOR, only_idle=True, certain=False)

    def _made(
        self, silent: dict[int, float], about: float, *, only_idle: bool, certain: bool
    ) -> Suspicion | None:
        if not silent:
            return None
        idle = frozenset(n for n, one in self._ranks.items() if one.idle >= about / 2)
        return Suspicion(silent, idle, only_idle, certain)
