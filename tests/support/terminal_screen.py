"""What a terminal shows: a VT100, as far as ours and ranks' output needs it."""

from __future__ import annotations

import re

__all__ = ["Screen"]

_PIECES = re.compile(r"\x1b\[([\d;]*)([A-Za-z])|\x1b([78D])|([\r\n])|([^\x1b\r\n]+)")


class Screen:
    """The lines of a terminal that was fed ``text``, and where its cursor is."""

    def __init__(self, columns: int, lines: int) -> None:
        self._columns, self._height = columns, lines
        self._rows = [" " * columns for _ in range(lines)]
        self._bottom = lines - 1  # of what scrolls
        self.cursor = self._saved = (0, 0)  # line, column

    @property
    def rows(self) -> list[str]:
        return [row.rstrip() for row in self._rows]

    @property
    def scrolls_whole(self) -> bool:
        return self._bottom == self._height - 1

    def feed(self, text: str) -> None:
        end = 0
        for piece in _PIECES.finditer(text):
            assert piece.start() == end, f"not understood: {text[end : piece.start()]!r}"
            end = piece.end()
            numbers, letter, short, control, printed = piece.groups()
            row = self.cursor[0]
            if control == "\r":
                self.cursor = row, 0
            elif control == "\n" or short == "D":
                self._down()
            elif short == "7":
                self._saved = self.cursor
            elif short == "8":
                self.cursor = self._saved
            elif printed:
                self._print(printed)
            else:
                self._control(letter, [int(number or 0) for number in numbers.split(";")])
        assert end == len(text), f"not understood: {text[end:]!r}"

    def _print(self, text: str) -> None:
        row, column = self.cursor
        assert column + len(text) < self._columns, "a line that wraps"
        old = self._rows[row]
        self._rows[row] = old[:column] + text + old[column + len(text) :]
        self.cursor = row, column + len(text)

    def _down(self) -> None:
        row, column = self.cursor
        if row == self._bottom:
            del self._rows[0]
            self._rows.insert(self._bottom, " " * self._columns)
        else:
            self.cursor = min(row + 1, self._height - 1), column

    def _control(self, letter: str, numbers: list[int]) -> None:
        row, column = self.cursor
        match letter, numbers:
            case "A", [count]:
                self.cursor = max(0, row - (count or 1)), column
            case "H", [to_row, to_column]:
                self.cursor = min(to_row, self._height) - 1, to_column - 1
            case "K", [2]:
                self._rows[row] = " " * self._columns
            case "K", [0]:
                self._rows[row] = self._rows[row][:column].ljust(self._columns)
            case "r", [0]:
                self._bottom, self.cursor = self._height - 1, (0, 0)
            case "r", [1, bottom]:
                self._bottom, self.cursor = bottom - 1, (0, 0)
            case _:
                raise AssertionError(f"not understood: {numbers} {letter}")
