"""Makes one line of the same line that several ranks have printed at about the same time.

Ranks of one training mostly print the same. A line waits a short time for the other ranks, and is
then one line that names all of them. Lines of one rank stay in their order, and none is lost; a
line that is one rank's alone goes beside those of its kind of the other ranks ("loss 0.3"). It is
pure: lines and times go in, lines come out. It may import only the standard library and
``llutil.system``.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, field

from llutil.system.number_ranges import ranges

__all__ = ["MANY", "FoldedLines"]

MANY = 3
"""So many ranks at least become one line. The lines of two are easier to read, and to search for,
one by one.
"""
_WAIT = 0.3
"""Seconds that a line waits at most."""
_MOST = 2000
"""So many lines wait at most."""
_NO_DIGITS = dict.fromkeys(map(ord, "0123456789"))


@dataclass(slots=True, eq=False)
class _Line:
    place: float
    """Lines that wait are in the order of their places."""
    at: float
    """When it came, or earlier, if one that comes after it in the log did."""
    level: int
    text: str
    kind: str
    """The text without its digits."""
    ranks: list[int] = field(default_factory=list)


class FoldedLines:
    """The lines that wait. ``ranks`` is how many ranks may print."""

    def __init__(self, ranks: int) -> None:
        self._ranks = ranks
        self._waiting: list[_Line] = []
        self._same: dict[tuple[int, str], list[_Line]] = {}
        """Of those that wait, the ones with the same level and text, in order."""
        self._last: dict[int, _Line] = {}
        """The last line of each rank, if it waits."""

    @property
    def due(self) -> float:
        """When the oldest line has waited long enough, on the clock of ``add``."""
        return self._waiting[0].at + _WAIT if self._waiting else math.inf

    def add(self, rank: int, level: int, text: str, now: float) -> None:
        """``rank`` has printed ``text``."""
        last = self._last.get(rank)
        after = -math.inf if last is None else last.place
        same = self._same.setdefault((level, text), [])
        index = bisect_right(same, after, key=_place)
        line = same[index] if index < len(same) else self._insert(level, text, last, now)
        line.ranks.append(rank)
        self._last[rank] = line

    def take(self, now: float) -> Iterator[tuple[int, str]]:
        """Take away what need not wait any longer: levels, and lines behind their ranks."""
        while self._waiting:
            line = self._waiting[0]
            told_by_all = len(line.ranks) >= self._ranks
            if not (told_by_all or line.at + _WAIT <= now or len(self._waiting) > _MOST):
                return
            self._remove_first()
            if len(line.ranks) < MANY:
                for rank in line.ranks:
                    yield line.level, f"[rank {rank}] {line.text}"
            else:
                yield line.level, f"[ranks {ranges(line.ranks)}] {line.text}"

    def _insert(self, level: int, text: str, last: _Line | None, now: float) -> _Line:
        """A new line, somewhere after ``last``: behind the lines of its kind that follow, and
        behind those of the kind of ``last``, which other ranks have printed before this line.
        """
        kind = text.translate(_NO_DIGITS)
        waiting = self._waiting
        index = 0 if last is None else bisect_right(waiting, last.place, key=_place)
        for skipped in (kind if last is None else last.kind, kind):
            end = min(index + self._ranks, len(waiting))
            while index < end and waiting[index].kind == skipped:
                index += 1
        low = waiting[index - 1].place if index else waiting[0].place - 2 if waiting else -2.0
        high = waiting[index].place if index < len(waiting) else low + 2
        at = min(now, waiting[index].at) if index < len(waiting) else now
        line = _Line((low + high) / 2, at, level, text, kind)
        waiting.insert(index, line)
        same = self._same[level, text]
        same.insert(bisect_right(same, line.place, key=_place), line)
        if not low < line.place < high:  # no number is left between the two
            for place, one in enumerate(waiting):
                one.place = float(place)
        return line

    def _remove_first(self) -> None:
        line = self._waiting.pop(0)
        same = self._same[line.level, line.text]
        same.pop(0)  # lines leave in their order
        if not same:
            del self._same[line.level, line.text]
        for rank in line.ranks:
            if self._last.get(rank) is line:
                del self._last[rank]


def _place(line: _Line) -> float:
    return line.place
