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
        """Show ``rows`` below ``header``; without rows, nothing. Numbers are on the right."""
        cells = [[_cell(one) for one in row] for row in rows]
        if not cells:
            return
        right = [
            all(row[column].text[:1].isdigit() or row[column].text == "-" for row in cells)
            for column in range(len(header))
        ]
        if self._console is None:
            self._plain_table(header, cells, right)
            return
        from rich.table import Table
        from rich.text import Text

        table = Table(box=None, pad_edge=False, header_style="bold")
        for number, (name, is_right) in enumerate(zip(header, right, strict=True)):
            side: Any = "right" if is_right else "left"
            # The first column is what people copy: it stays on one line as long as it can.
            table.add_column(name, justify=side, overflow="fold", no_wrap=number == 0)
        for row in cells:
            table.add_row(*(Text(cell.text, cell.style) for cell in row))
        self._console.print(table)

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
        parts = [part for cell in shown for part in (cell, ("  ", ""))]
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
            self.raw("".join(text for text, _ in cells) + "\n")
            return
        from rich.text import Text

        self._console.print(Text.assemble(*cells), soft_wrap=True)

    def _plain_table(
        self, header: Sequence[str], cells: list[list[Cell]], right: Sequence[bool]
    ) -> None:
        lines = [list(header), *([cell.text for cell in row] for row in cells)]
        widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
        for line in lines:
            padded = (
                f"{text:{'>' if is_right else '<'}{width}}"
                for text, width, is_right in zip(line, widths, right, strict=True)
            )
            self.raw(_BETWEEN.join(padded).rstrip() + "\n")


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
