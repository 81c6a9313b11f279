"""From a worker's raw output to lines: splitting, overlong lines, bars that redraw themselves.

Pure: bytes and a time go in, lines come out. It imports nothing, and knows neither files nor ranks.
"""

from __future__ import annotations

__all__ = ["LineSplitter"]

_LONGEST = 64 * 1024  # bytes of a line that are kept together; what follows becomes the next line
_REDRAW_PERIOD = 1.0  # seconds between two shown states of a line that redraws itself


class LineSplitter:
    """Splits a byte stream into lines of text.

    A carriage return ends a line too, since progress bars use nothing else; of such redrawn states at most
    one a second is given out, and always the last one. What is not UTF-8 is shown with escapes.
    """

    def __init__(self) -> None:
        self._rest = b""
        self._redrawn = b""  # the latest state that was held back
        self._last_redraw = float("-inf")

    def feed(self, data: bytes, now: float) -> list[str]:
        """Lines that ``data`` completed; ``now`` in seconds on any monotonic clock."""
        lines: list[str] = []
        *whole, self._rest = (self._rest + data).split(b"\n")
        for line in whole:
            *states, last = line.removesuffix(b"\r").split(b"\r")
            shown = last or (states[-1] if states else self._redrawn)
            self._redrawn = b""
            lines += self._cut(shown)
        *states, self._rest = self._rest.split(b"\r")
        if states:
            self._redrawn = states[-1] or self._redrawn
            if self._redrawn and now - self._last_redraw >= _REDRAW_PERIOD:
                lines += self._cut(self._redrawn)
                self._redrawn = b""
                self._last_redraw = now
        while len(self._rest) > _LONGEST:
            lines.append(_text(self._rest[:_LONGEST]))
            self._rest = self._rest[_LONGEST:]
        return lines

    def finish(self) -> list[str]:
        """What is left when the stream ended: a last line without its newline."""
        left = self._rest or self._redrawn
        self._rest = self._redrawn = b""
        return self._cut(left) if left else []

    @staticmethod
    def _cut(line: bytes) -> list[str]:
        return [_text(line[at : at + _LONGEST]) for at in range(0, max(1, len(line)), _LONGEST)]


def _text(line: bytes) -> str:
    return line.decode("utf-8", errors="backslashreplace")
