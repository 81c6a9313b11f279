"""Small curves of metrics, thinned evenly. This module may import only the standard library and the
form of the key.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from airflow_provider.task_state.elastic_form import Metrics, Point

__all__ = ["MOST_METRICS", "MOST_POINTS", "SeenCurves", "continued", "thinned"]

MOST_METRICS = 8
"""So many metrics have a curve, those that came first."""

MOST_POINTS = 200
"""Points of one curve."""

_LONGEST_NAME = 100
"""Characters of a metric's name."""


class SeenCurves:
    """The curves of one try. ``left_out`` says that there are more metrics than curves."""

    def __init__(self) -> None:
        self.left_out = False
        self._curves: dict[str, _Curve] = {}

    def add(self, step: int, seconds: float, metrics: Mapping[str, float]) -> None:
        """The ``metrics`` of a rank that has done ``step`` steps, in seconds since 1970."""
        for name, value in metrics.items():
            shown = name if len(name) <= _LONGEST_NAME else f"{name[:_LONGEST_NAME]} ..."
            if shown not in self._curves:
                if len(self._curves) == MOST_METRICS:
                    self.left_out = True
                    continue
                self._curves[shown] = _Curve()
            self._curves[shown].add((step, round(seconds), _number(value)))

    @property
    def metrics(self) -> Metrics:
        """The points so far."""
        return {name: curve.points for name, curve in self._curves.items()}


class _Curve:
    """One curve. Its steps only grow: when ranks go on from an earlier step, the points of the
    steps that are done again are dropped.
    """

    def __init__(self) -> None:
        self._kept: list[Point] = []
        self._last: Point | None = None
        self._every, self._count = 1, 0

    def add(self, point: Point) -> None:
        last = self._last
        if last is not None and point[0] < last[0]:
            self._kept = [kept for kept in self._kept if kept[0] < point[0]]
        self._last = point
        if last is not None and point[0] == last[0]:
            return
        if self._count % self._every == 0:
            self._kept.append(point)
            if len(self._kept) == 2 * MOST_POINTS:
                del self._kept[1::2]
                self._every *= 2
        self._count += 1

    @property
    def points(self) -> tuple[Point, ...]:
        """Those that are kept, and the newest."""
        assert self._last is not None
        kept = self._kept[:-1] if self._kept and self._kept[-1][0] == self._last[0] else self._kept
        return *kept, self._last


def continued(earlier: Metrics, new: Metrics) -> Metrics:
    """The curves of an earlier try, and after them those of this one, which may do steps again."""
    names = [*new, *(name for name in earlier if name not in new)][:MOST_METRICS]
    joined: dict[str, tuple[Point, ...]] = {}
    for name in names:
        points = new.get(name, ())
        before = earlier.get(name, ())
        first = min((point[0] for point in points), default=math.inf)
        joined[name] = *(point for point in before if point[0] < first), *points
    return joined


def thinned(points: Sequence[Point], most: int) -> list[Point]:
    """At most ``most`` of the points, evenly; the first and the last are among them."""
    if len(points) <= most:
        return list(points)
    if most < 2:
        return list(points[-1:])
    gaps = most - 1
    return [points[number * (len(points) - 1) // gaps] for number in range(most)]


def _number(value: float) -> float | str:
    """A number of few digits; a text if it is none that JSON knows."""
    return float(f"{value:.6g}") if math.isfinite(value) else str(value)
