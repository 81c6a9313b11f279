"""Texts cut so that they fit into any store and onto a screen.

This module may import nothing but the standard library.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence

__all__ = ["shortened", "without_native_frames"]

_LONGEST_LINE = 300
"""Characters."""
_NATIVE = re.compile(r"\s*frame #\d+: ")
_NATIVE_HEAD = "Exception raised from "


def shortened(lines: Iterable[str], most: int, size: int, *, ends: bool = False) -> list[str]:
    """``lines``, cut to ``most`` lines that take at most ``size`` bytes as JSON, with one line that
    says how many were left out.

    The first and the last lines are kept: a traceback begins with the user's call and ends with the
    error. With ``ends``, only the last lines are kept. Lines over 300 characters are cut.
    """
    short = [_short(line) for line in lines]
    if len(short) <= most and sum(map(_size, short)) <= size:
        return short
    room, places = size - _size(_left_out(len(short))), most - 1
    head: list[str] = []
    tail: list[str] = []
    first, last = 0, len(short) - 1
    while first <= last and places > 0:
        backwards = ends or len(tail) <= len(head)
        line = short[last if backwards else first]
        room -= _size(line)
        if room < 0:
            break
        places -= 1
        if backwards:
            tail.insert(0, line)
            last -= 1
        else:
            head.append(line)
            first += 1
    left_out = last - first + 1
    return [*head, *([_left_out(left_out)] if left_out else []), *tail]


def without_native_frames(lines: Sequence[str]) -> list[str]:
    """``lines`` with one line in place of each run of C++ frames, which torch's messages hold."""
    kept: list[str] = []
    frames = 0
    for line in lines:
        if _NATIVE.match(line):
            frames += 1
            continue
        if frames:
            kept.append(_folded(frames))
            frames = 0
        if line.startswith(_NATIVE_HEAD):
            kept.append(line.removesuffix(" (most recent call first):"))
        else:
            kept.append(line)
    return [*kept, _folded(frames)] if frames else kept


def _folded(frames: int) -> str:
    return f"  ... {frames} C++ frames left out ..."


def _left_out(count: int) -> str:
    return f"  ... {count} lines left out ..."


def _short(line: str) -> str:
    return line if len(line) <= _LONGEST_LINE else f"{line[:_LONGEST_LINE]} ..."


def _size(line: str) -> int:
    """Bytes that the line takes in JSON of ASCII, with its newline."""
    return len(json.dumps(line))
