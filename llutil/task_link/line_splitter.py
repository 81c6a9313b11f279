"""From a process' raw output to lines: splitting, overlong lines, bars that redraw themselves.

Pure: bytes and a time go in, lines come out. It imports nothing, and knows neither files nor ranks.
"""

from __future__ import annotations

__all__ = ["LineSplitter"]

_LONGEST = 64 * 1024  # bytes of a line that are kept together; what follows becomes the next line
_REDRAW_PERIOD = 1.0  # seconds between two shown states of a line that redraws itself


class LineSplitter:
    """Splits a byte stream into lines of text.

    A carriage return ends a line too, since progress bars use nothing else; of such redrawn states
    at most one a second is given out, and always the last one. What is not UTF-8 is shown with
    escapes.
    """

    def __init__(self) -> None:
        self._rest = b""
        self._held = b""  # the latest redrawn state that was held back
        self._shown = False  # whether the latest redrawn state of the present line was given out
        self._last_redraw = float("-inf")

    def feed(self, data: bytes, now: float) -> list[str]:
        """Lines that ``data`` completed; ``now`` in seconds on any monotonic clock."""
        lines: list[str] = []
        *whole, self._rest = (self._rest + data).split(b"\n")
        for line in whole:
            lines += self._complete(line)
        *states, self._rest = self._rest.split(b"\r")
        if latest := _latest(states):
            self._held, self._shown = latest, False
        if self._held and now - self._last_redraw >= _REDRAW_PERIOD:
            lines += _cut(self._held)
            self._held, self._shown = b"", True
            self._last_redraw = now
        while len(self._rest) > _LONGEST:
            end = _whole_characters(self._rest)
            lines.append(_text(self._rest[:end]))
            self._rest = self._rest[end:]
        return lines

    def finish(self) -> list[str]:
        """What is left when the stream ended: a last line without its newline."""
        left = self._rest or self._held
        self._rest = self._held = b""
        return _cut(left) if left else []

    def _complete(self, line: bytes) -> list[str]:
        """The last state of a line whose newline has come. Nothing, if that has been given out
        already.
        """
        latest = _latest(line.split(b"\r")) or self._held
        shown, self._held, self._shown = self._shown, b"", False
        return [] if shown and not latest else _cut(latest)


def _latest(states: list[bytes]) -> bytes:
    """The last that is not empty: a bar often erases itself, or moves to the start of the line, at
    its end.
    """
    return next((state for state in reversed(states) if state), b"")


def _cut(line: bytes) -> list[str]:
    pieces = []
    while len(line) > _LONGEST:
        end = _whole_characters(line)
        pieces.append(_text(line[:end]))
        line = line[end:]
    return [*pieces, _text(line)]


def _whole_characters(line: bytes) -> int:
    """Where to cut an overlong line: as late as possible, and not inside a character of UTF-8."""
    end = _LONGEST
    while end > _LONGEST - 3 and line[end] & 0xC0 == 0x80:
        end -= 1
    return end


def _text(line: bytes) -> str:
    return line.decode("utf-8", errors="backslashreplace")
