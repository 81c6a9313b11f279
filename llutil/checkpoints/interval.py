"""How often a job saves by itself: after so many steps, or after so much time.

This module may import only the standard library: parsing a DAG imports it.
"""

from __future__ import annotations

import re
from datetime import timedelta

__all__ = ["interval"]

_STEPS = re.compile(r"\s*([0-9]{1,18})\s*")
_TIME = re.compile(r"\s*([0-9]{1,9}(?:\.[0-9]{1,9})?)\s*(s|min|h)\s*")
_UNITS = {"s": timedelta(seconds=1), "min": timedelta(minutes=1), "h": timedelta(hours=1)}


def interval(given: object) -> int | timedelta:
    """The number of steps, or the time, that ``given`` says: 100 or "100", "90s", "10min", "2h".

    :raises ValueError: it is neither, or not more than 0.
    """
    found: int | timedelta = 0
    if isinstance(given, int) and not isinstance(given, bool):
        found = max(0, given)
    elif isinstance(given, str):
        steps, time = _STEPS.fullmatch(given), _TIME.fullmatch(given)
        if steps:
            found = int(steps[1])
        elif time:
            found = float(time[1]) * _UNITS[time[2]]
    if not found:
        raise ValueError(
            f"is {given!r}; wanted a whole number of steps, or a time such as '90s', '10min' or "
            "'2h', more than 0"
        )
    return found
