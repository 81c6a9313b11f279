"""Texts that hold figures of the report, between markers: ``<!-- report: NAME -->`` and
``<!-- /report -->``.

Markers on lines of their own hold a table, those within a line one figure. What has to stand
between them is made from ``report.json`` alone. A line may not begin with a marker and go on after
it: Markdown takes that whole line for HTML.

This module may import nothing but the standard library.
"""

from __future__ import annotations

import re
from collections.abc import Callable

__all__ = ["MarkerError", "fill", "without_marked"]

_BEGIN, _END = r"<!-- report: (?P<name>[^ ]+) -->", r"<!-- /report -->"
_MARKED = re.compile(rf"(?P<begin>{_BEGIN})(?P<held>.*?)(?P<end>{_END})", re.DOTALL)
_ANY = re.compile(rf"{_BEGIN}|{_END}")
_LINE_BEGINS = re.compile(r"[\s>*+-]*|\s*\d+\.\s*")


class MarkerError(ValueError):
    """Markers that do not belong together, or stand where they may not."""


def fill(text: str, made: Callable[[str], str]) -> str:
    """``text`` with what ``made`` makes of each marker's name between its markers.

    :raises MarkerError: with what is wrong with which one.
    """

    def whole(found: re.Match[str]) -> str:
        is_table = found["held"].startswith("\n")
        line_before = text[: found.start()].rpartition("\n")[2]
        if not is_table and _LINE_BEGINS.fullmatch(line_before):
            raise MarkerError(f"{found['begin']} begins a line that goes on after it")
        held = made(found["name"])
        if ("\n" in held) != is_table:
            where = "within a line" if "\n" not in held else "on a line of its own"
            raise MarkerError(f"{found['begin']} has to stand {where}")
        held = f"\n\n{held.strip()}\n\n" if is_table else held
        return f"{found['begin']}{held}{found['end']}"

    if left := _ANY.search(without_marked(text)):
        raise MarkerError(f"{left[0]} has no other end")
    return _MARKED.sub(whole, text)


def without_marked(text: str) -> str:
    """``text`` without what is between markers, and without these."""
    return _MARKED.sub("", text)
