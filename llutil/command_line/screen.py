"""Shows tables and lines: with colours on a terminal, plainly in a pipe or without rich.

This module may import the standard library, ``llutil.system`` and rich.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from llutil.system.printable import printable

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["Cell", "Screen"]

_BETWEEN = "  "


class Cell(NamedTuple):
    """One text of a table, and its colour on a terminal, in rich's words."""

    text: str
    style: str = ""


class Screen:
    """Standard output."""

    def __init__(self) -> None:
        self._console = _console()

    def table(self, header: Sequence[str], rows: Sequence[Sequence[str | Cell]]) -> None:
        """Show ``rows`` below ``header``; without rows, nothing. Numbers are on the right.

        A table that is wider than the terminal is not squeezed into it: a run id of Airflow's is
        often as long as a line, and the other columns would get no room at all.
        """
        cells = [[_cell(one) for one in row] for row in rows]
        if not cells:
            return
        lines = [[Cell(name, "bold") for name in header], *cells]
        for column in range(len(header)):
            texts = [row[column].text for row in cells]
            side = ">" if all(text[:1].isdigit() or text == "-" for text in texts) else "<"
            width = max(len(line[column].text) for line in lines)
            for line in lines:
                line[column] = line[column]._replace(text=f"{line[column].text:{side}{width}}")
        for line in lines:
            self.row(*line)

    def facts(self, facts: Sequence[tuple[str, str | Cell]]) -> None:
        """Show names and what is to be said of them, a line each; those without a text are left
        out.
        """
        told = [(name, _cell(one)) for name, one in facts if _cell(one).text]
        width = max((len(name) for name, _ in told), default=0)
        for name, cell in told:
            self._line((f"{name:{width}}{_BETWEEN}", "dim"), cell)

    def row(self, *cells: Cell) -> None:
        """Show one line made of ``cells``."""
        shown = [_cell(cell) for cell in cells]
        parts = [part for cell in shown for part in (cell, (_BETWEEN, ""))]
        self._line(*parts[:-1])

    def line(self, text: str, style: str = "") -> None:
        """Show one line."""
        self._line(_cell(Cell(text, style)))

    def raw(self, text: str) -> None:
        """Write ``text`` as it is."""
        sys.stdout.write(text)
        sys.stdout.flush()

    def _line(self, *cells: tuple[str, str]) -> None:
        if self._console is None:
            self.raw("".join(text for text, _ in cells).rstrip() + "\n")
            return
        from rich.text import Text

        self._console.print(Text.assemble(*cells), soft_wrap=True)


def _cell(given: str | Cell) -> Cell:
    cell = given if isinstance(given, Cell) else Cell(given)
    return Cell(printable(cell.text), cell.style)


def _console() -> Console | None:
    """rich's console, if standard output is a terminal and rich is installed."""
    if not sys.stdout.isatty():
        return None
    try:
        from rich.console import Console
    except ImportError:
        return None
    options: dict[str, Any] = {"highlight": False, "markup": False, "emoji": False}
    return Console(**options)
