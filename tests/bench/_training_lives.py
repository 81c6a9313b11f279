"""What the ranks of ``dags/scripts/training.py`` have written down, and what a kill has cost them.

This module may import nothing but the standard library.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Cost", "Life", "await_life", "cost", "read_life"]

_PATIENCE = 120.0  # seconds
_POLL = 0.01


@dataclass(frozen=True, slots=True)
class Life:
    """One life of a training: its ranks' process ids, the step that it resumed from, and when its
    slowest rank had made each step, by the monotonic clock.
    """

    name: str
    pids: tuple[int, ...]
    resumed: int
    times: tuple[float, ...]

    @property
    def step(self) -> int:
        """The last step of it."""
        return self.resumed + len(self.times)

    @property
    def pace(self) -> float:
        """Seconds of a step."""
        return statistics.median(
            later - sooner for sooner, later in zip(self.times, self.times[1:], strict=False)
        )


@dataclass(frozen=True, slots=True)
class Cost:
    """Seconds that a training is later for a kill: those of steps that were done ``again``, and the
    rest, in which it ``stood``.
    """

    again: float
    stood: float

    @property
    def lost(self) -> float:
        """All of it."""
        return self.again + self.stood


def cost(killed: float, before: Life, after: Life) -> Cost:
    """What the kill at the time ``killed`` has cost, from both lives around it.

    Without it, the step that ``after`` begins with would have come as much later than the kill as
    the steps between them take. What ``before`` did after the kill, in its time to end, counts.
    """
    seen = sum(at <= killed for at in before.times) + before.resumed
    first = after.resumed + 1
    lost = after.times[0] - killed - (first - seen) * before.pace
    again = max(0, before.step - after.resumed) * before.pace
    return Cost(again, lost - again)


def _newest(folder: Path) -> Life | None:
    """The newest life that all of its two ranks have begun to train in."""
    names = sorted({path.name.rsplit("-", 1)[0] for path in folder.glob("life-*")})
    return read_life(folder, names[-1]) if names else None


def read_life(folder: Path, name: str) -> Life | None:
    """The life of that name; None as long as a rank has made no step in it."""
    told = []
    for rank in (0, 1):
        path = folder / f"{name}-{rank}"
        # The last line of a rank that was killed may be cut short.
        lines = path.read_text().split("\n")[:-1] if path.exists() else []
        if len(lines) < 2:
            return None
        told.append([line.split() for line in lines])
    pids = tuple(int(lines[0][0]) for lines in told)
    times = [[float(at) for _, at in lines[1:]] for lines in told]
    return Life(name, pids, int(told[0][0][1]), tuple(map(max, zip(*times, strict=False))))


def await_life(
    what: str, folder: Path, wanted: Callable[[Life], bool], told: Callable[[], str]
) -> Life:
    """The newest life, as soon as it is as ``wanted``.

    :raises TimeoutError: it was not in two minutes; the text has ``what``, and ``told()``.
    """
    until = time.monotonic() + _PATIENCE
    while True:
        life = _newest(folder)
        if life is not None and wanted(life):
            return life
        if time.monotonic() > until:
            raise TimeoutError(f"waited {_PATIENCE:.0f} s for {what}\n{told()}")
        time.sleep(_POLL)
