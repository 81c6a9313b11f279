"""Jobs of random steps for the hang watchdog: ``python -m tests.simulation.hang_jobs [JOBS]``.

A job has the ranks of one node. Its time is made of phases: first steps, steps with heavy tails,
evaluations, checkpoints. Meanwhile it is paused, stopped, suspended and restarted. In each phase a
rank works, waits for others in a collective, or waits alone, as for a file. At its end the job
either goes well or hangs in one of a few ways.
"""

from __future__ import annotations

import random
import sys
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field

from llutil.agent.hang.hang_watch import AUTO, HangWatch, Sight
from llutil.agent.hang.odd_rank import SeenRank, hang_of
from llutil.agent.hang.stack_text import Frame, Stack

__all__ = ["HANGS", "Outcome", "play"]

WORKS, COMMUNICATES, WAITS, ALONE = "works", "communicates", "waits", "alone"
# Seconds of processor time that a rank uses a second.
RATE = {WORKS: 0.9, COMMUNICATES: 0.02, WAITS: 0.001, ALONE: 0.0005}
COLLECTIVE = Frame("/v/site-packages/torch/distributed/distributed_c10d.py", 3000, "all_reduce")
HANGS = {
    "lock": "one rank waits in a lock, the others in a collective",
    "unknown": "all ranks stand still, and no stack says in what",
    "deadlock": "all ranks wait in collectives, for each other",
    "spin": "one rank works for ever, the others wait for it",
    "elsewhere": "all ranks wait for another node's",
}
# Seconds after a limit until the hang must be found: two looks, and the look before.
LOOKS = 90.0
FOR_EVER = 1e9
HOUR = 3600.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a job. ``after`` is how long it had hung when that was found, in seconds; None
    if nothing was found. ``slowest`` is the slowest silence before.
    """

    seed: int
    hang: str
    false_alarm: str = ""
    after: float | None = None
    bound: float = 0.0
    named: int | None = None
    odd: int = 0


@dataclass(slots=True)
class _Rank:
    """A rank on its own time: what it does next, and what is seen of it."""

    number: int
    reports: bool
    phases: deque[tuple[float, str, int]] = field(default_factory=deque)
    done: float = 0.0
    step: int = 0
    beat: int = 0
    cpu: float = 0.0

    def live(self, seconds: float) -> None:
        while seconds > 0 and self.phases:
            length, kind, steps = self.phases[0]
            spent = min(seconds, length - self.done)
            self.cpu += spent * RATE[kind]
            self.done += spent
            seconds -= spent
            if self.done >= length:
                self.phases.popleft()
                self.done = 0.0
                if steps and self.reports:
                    self.step += steps
                    self.beat += 1

    @property
    def kind(self) -> str:
        return self.phases[0][1] if self.phases else ALONE

    def sight(self) -> Sight:
        return Sight(self.number, (self.step, self.beat) if self.beat else None, self.cpu)

    def seen(self, line: int, *, opaque: bool) -> SeenRank:
        waits = self.kind == WAITS and not opaque
        user = Frame("/home/user/train.py", 10 if opaque else line, "train")
        return SeenRank(
            local_rank=self.number,
            rank=self.number,
            pid=1000 + self.number,
            step=self.step if self.beat else None,
            heartbeat=self.beat,
            stack=Stack(((COLLECTIVE, user) if waits else (user,),)),
        )


class _Job:
    """One job, and its time. ``hung_at`` is when, on its ranks' time, it hangs; None if never."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        draw = self.random
        self.ranks = [
            _Rank(number, reports=number == 0 or bool(seed % 3))
            for number in range(draw.choice([1, 2, 2, 4, 8]))
        ]
        self.one_node = draw.random() < 0.5
        self.base = draw.choice([0.001, 0.1, 1.0, 10.0, 60.0])
        self.hang = draw.choice(["", *HANGS])
        if len(self.ranks) == 1 and self.hang in {"lock", "spin", "deadlock"}:
            self.hang = "unknown"
        if self.hang == "elsewhere":
            self.one_node = False
        if self.hang in {"deadlock", "unknown"}:
            self.one_node = True
        self.odd = draw.randrange(len(self.ranks))

    def begin(self) -> float:
        """The phases of a new round; returns how long they take."""
        for rank in self.ranks:
            rank.phases.clear()
            rank.done, rank.step, rank.beat = 0.0, 0, 0
        length = sum(self._together(60 * self.base * self.random.uniform(0.5, 1.0), WORKS, 1))
        for _ in range(self.random.randrange(4, 12)):
            length += sum(self._steps())
            length += sum(self._pause_of_steps())
        length += sum(self._steps())
        return length

    def _steps(self) -> Iterator[float]:
        """Many steps, with heavy tails; short ones are lumped together, in reports of 20 s."""
        draw = self.random
        lump = max(1, int(20 / self.base))
        for _ in range(draw.randrange(5, 60)):
            length = self.base * lump * draw.lognormvariate(0, 0.5)
            kind = WORKS
            if draw.random() < 0.03:
                length += min(self.base * draw.paretovariate(0.7), HOUR)
            elif draw.random() < 0.02:  # data that come late
                length += min(self.base * draw.paretovariate(0.7), 300.0)
                kind = ALONE
            yield from self._together(length, kind, lump)

    def _pause_of_steps(self) -> Iterator[float]:
        """An evaluation or a checkpoint: by all, or by rank 0 while the others wait."""
        draw = self.random
        if draw.random() < 0.5:
            length, kind = draw.uniform(60, 1.5 * HOUR), WORKS
        else:
            length, kind = draw.uniform(10, 0.5 * HOUR), COMMUNICATES
        if draw.random() < 0.5:
            yield from self._together(length, kind, 1)
            return
        others = WAITS if draw.random() < 0.7 else ALONE
        worker = 0 if self.one_node or others == ALONE or draw.random() < 0.5 else None
        for rank in self.ranks:
            rank.phases.append((length, kind if rank.number == worker else others, 1))
        yield length

    def _together(self, length: float, kind: str, steps: int) -> Iterator[float]:
        """All ranks do this, in random parts of its time, and wait for the slowest one."""
        slowest = self.random.randrange(len(self.ranks))
        for rank in self.ranks:
            part = 1.0 if rank.number == slowest else self.random.uniform(0.3, 1.0)
            if part < 1.0:
                rank.phases.append((length * part, kind, 0))
                rank.phases.append((length * (1 - part), WAITS, steps))
            else:
                rank.phases.append((length, kind, steps))
        yield length

    def hangs(self) -> None:
        """Let the ranks hang from here on."""
        kinds = {"lock": ALONE, "unknown": ALONE, "spin": WORKS}
        for rank in self.ranks:
            rank.phases.clear()
            rank.done = 0.0
            odd = kinds.get(self.hang, WAITS)
            alone = rank.number == self.odd or self.hang == "unknown"
            rank.phases.append((FOR_EVER, odd if alone else WAITS, 0))


def play(seed: int) -> Outcome:
    """Play one job to its end."""
    job = _Job(seed)
    draw = job.random
    watch = HangWatch(AUTO)
    now = draw.uniform(0, 1e6)
    for life in range(draw.randrange(1, 3)):
        left = job.begin()
        watch.begin(now)
        while left > 0:
            now, lived, held = _pass_time(draw, now, watch.next_look)
            left -= lived
            found = _look(job, watch, now, lived, held=held)
            if found is not None:
                kinds = ", ".join(rank.kind for rank in job.ranks)
                return Outcome(seed, job.hang, f"life {life}: rank {found} named ({kinds})")
    if not job.hang:
        return Outcome(seed, "")
    job.hangs()
    long = job.hang in {"spin", "elsewhere"}
    bound = LOOKS + max(watch.limits(rank.number)[long] for rank in job.ranks if rank.reports)
    hung = 0.0
    while hung < bound:
        now, lived, held = _pass_time(draw, now, watch.next_look, calm=True)
        hung += lived
        found = _look(job, watch, now, lived, held=held)
        if found is not None:
            return Outcome(seed, job.hang, "", hung, bound, found, job.odd)
    return Outcome(seed, job.hang, "", None, bound)


def _pass_time(
    draw: random.Random, now: float, next_look: float, *, calm: bool = False
) -> tuple[float, float, bool]:
    """When the next look is, how long the ranks have lived until then, and whether somebody holds
    them.
    """
    passed = next_look - now + draw.choice([0.0, 0.0, 0.1, 5.0])
    chance = 1.0 if calm else draw.random()
    if chance < 0.001:  # the machine is suspended
        return now + passed + draw.uniform(0, 20 * HOUR), passed, False
    if chance < 0.03:  # a pause, a debugger, SIGSTOP
        return now + passed, 0.0, True
    return now + passed, passed, False


def _look(job: _Job, watch: HangWatch, now: float, lived: float, *, held: bool) -> int | None:
    """The rank that is named, if a hang is found."""
    for rank in job.ranks:
        rank.live(lived)
    suspicion = watch.look(now, [rank.sight() for rank in job.ranks], held=held)
    if suspicion is None:
        return None
    opaque = job.hang == "unknown" and job.ranks[0].phases[0][0] == FOR_EVER
    seen = [rank.seen(job.random.randrange(500), opaque=opaque) for rank in job.ranks]
    odd = hang_of(suspicion, seen, one_node=job.one_node)
    if odd is None:
        watch.acquit(suspicion.silent)
        return None
    return odd.rank.rank


def main(arguments: list[str]) -> int:
    """Play many jobs, and print what came of them; 1 if one came out wrong."""
    outcomes = [play(seed) for seed in range(int(arguments[0]) if arguments else 1000)]
    alarms = [one for one in outcomes if one.false_alarm]
    for one in alarms:
        print(one)
    print(f"{len(outcomes)} jobs, {len(alarms)} false alarms")
    missed = 0
    for hang, meaning in HANGS.items():
        found = [one.after for one in outcomes if one.hang == hang and one.after is not None]
        lost = [one for one in outcomes if one.hang == hang and one.after is None]
        lost = [one for one in lost if not one.false_alarm]
        wrong = [one for one in outcomes if one.named not in {None, one.odd} and one.hang == hang]
        missed += len(lost)
        times = f"{min(found):.0f} to {max(found):.0f} s" if found else "never"
        print(f"{hang}: {meaning}: found {len(found)}, after {times}; missed {len(lost)}")
        print(f"  named another rank: {len(wrong)}")
    return 1 if alarms or missed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
