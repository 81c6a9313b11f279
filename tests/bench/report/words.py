"""How figures are written: in tables, in texts, and while benchmarks run.

This module may import nothing but the standard library and ``measurement``.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from tests.bench.report.measurement import Goal, Measurement, Sample

__all__ = ["amount", "goal", "number", "progress", "spread", "table", "times"]

_SECONDS = (("s", 1.0), ("ms", 1e3), ("µs", 1e6), ("ns", 1e9))


def number(value: float) -> str:
    """To three digits, and to a thousandth at most: ``30.7``, ``1.05``, ``0.063``, ``25,400``."""
    digits = next((n for n, least in enumerate((100, 10, 1)) if abs(value) >= least), 3)
    return f"{value:,.{digits}f}"


def amount(value: float, unit: str) -> str:
    """With its unit, and with seconds in the unit that fits: ``1.05 s``, ``63 ms``, ``350 ns``."""
    name, factor = _scale(value, unit)
    return f"{_figure(value, unit, factor)} {name}"


def _figure(value: float, unit: str, factor: float) -> str:
    """What is counted has no digits behind a point."""
    is_count = not value or (unit != "s" and value == int(value))
    return f"{value:,.0f}" if is_count else number(value * factor)


def _scale(value: float, unit: str) -> tuple[str, float]:
    if unit != "s":
        return unit, 1.0
    fitting = ((name, factor) for name, factor in _SECONDS if abs(value) * factor >= 1)
    return next(fitting, _SECONDS[0])


def times(ratio: float) -> str:
    """A ratio: ``401x``, ``5.8x``."""
    return f"{ratio:.1f}x" if abs(ratio) < 9.95 else f"{ratio:.0f}x"


def spread(sample: Sample, unit: str) -> str:
    """The median, and what lies around it: ``1.05 s (0.980 to 1.21)``; alone, if it is one
    value.
    """
    if sample.n == 1:
        return amount(sample.median, unit)
    _, factor = _scale(sample.median, unit)
    least, most = (_figure(value, unit, factor) for value in (sample.least, sample.most))
    return f"{amount(sample.median, unit)} ({least} to {most})"


def goal(one: Measurement) -> str:
    """Its goal, and whether it is met; empty without one."""
    met = "met" if one.is_met else "**missed**"
    match one.goal:
        case Goal("ratio", limit):
            return f"{limit:g}x: {met}"
        case Goal("ours", limit):
            return f"at most {amount(limit, one.unit)}: {met}"
        case Goal("difference", limit):
            return f"at most {amount(limit, one.unit)} more: {met}"
    return ""


def table(head: Sequence[object], rows: Iterable[Iterable[object]]) -> str:
    """A table of Markdown."""
    lines = (head, ["---"] * len(head), *rows)
    return "\n".join(
        f"| {' | '.join(map(str, cells))} |".replace(" --- ", "---") for cells in lines
    )


def progress(benchmark: str, one: Measurement) -> str:
    """A line about it while benchmarks run."""
    peer = f"{one.peer_name} {spread(one.peer, one.unit)} → " if one.peer is not None else ""
    ratio = f"  {times(one.ratio)}" if one.ratio is not None else ""
    wanted = f"  goal {goal(one)}".replace("*", "") if one.goal is not None else ""
    return f"{benchmark}.{one.key}: {peer}{spread(one.ours, one.unit)}{ratio}{wanted}"
