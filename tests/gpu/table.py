"""The table of ``make gpu``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Row", "table"]


@dataclass(frozen=True, slots=True)
class Row:
    """One part: whether it was as it has to be (None: not tried), how many seconds it took, and
    what it said.
    """

    part: str
    good: bool | None
    seconds: float
    said: str


_WORDS = {True: "ok", False: "FAILED", None: "not tried"}


def table(rows: Sequence[Row]) -> str:
    """The rows, a line each."""
    return "\n".join(
        f"{row.part:<12} {_WORDS[row.good]:<10} {row.seconds:>4.0f} s  {row.said}" for row in rows
    )
