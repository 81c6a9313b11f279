"""Figures and tables as the README has them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

__all__ = ["change", "figure", "print_table", "times_faster"]


def figure(seconds: float) -> str:
    """Seconds, to three digits and no more than a millisecond: ``30.7``, ``1.05``, ``0.063``."""
    digits = next((n for n, least in enumerate((100, 10, 1)) if seconds >= least), 3)
    return f"{seconds:.{digits}f}"


def times_faster(slow: float, fast: float) -> str:
    """How many times faster: ``401x``, ``5.8x``."""
    ratio = slow / fast
    return f"{ratio:.1f}x" if ratio < 9.95 else f"{ratio:.0f}x"


def change(slow: float, fast: float) -> str:
    """Both, and how many times faster: ``30.7 → 2.08 (15x)``."""
    return f"{figure(slow)} → {figure(fast)} ({times_faster(slow, fast)})"


def print_table(head: Sequence[object], rows: Iterable[Iterable[object]]) -> None:
    """A table of Markdown, after an empty line."""
    print()
    for cells in (head, ["---"] * len(head), *rows):
        print(f"| {' | '.join(map(str, cells))} |".replace(" --- ", "---"), flush=True)
