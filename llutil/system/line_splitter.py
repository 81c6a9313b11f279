"""Splits a process's raw output into lines; handles overlong lines and redrawn progress bars.

It is pure: bytes and a time go in, lines come out. It imports ``printable`` and nothing else, and
knows nothing of files and ranks.
"""

from __future__ import annotations

import re

from llutil.system.printable import printable, printable_lines

__all__ = ["LineSplitter"]

# Bytes of a line that are kept together. The bytes after them become the next line.
_LONGEST_LINE = 64 * 1024
_NOT_UTF8 = re.compile("[\udc80-\udcff]+")
_BYTES = [f"\\x{byte:02x}" for byte in range(0x80, 0x100)]
# Seconds between two shown states of a line that redraws itself.
_REDRAW_PERIOD = 1.0


class LineSplitter:
    """Splits a stream of bytes into lines of text.

    A carriage return ends a line too, since progress bars use nothing else. Of such redrawn states
    at most one a second is returned, and always the last one. Bytes that are not UTF-8 become
    escapes, and so does what would make a line look like several (``printable``).
    """

    def __init__(self) -> None:
        self._rest = b""
        # The latest redrawn state, if it has not been returned yet.
        self._held = b""
        # Whether the latest redrawn state of the present line was returned.
        self._returned = False
        self._last_redraw = float("-inf")

    def feed(self, data: bytes, now: float) -> list[str]:
        """The lines that ``data`` completes. ``now`` is in seconds on any monotonic clock."""
        if (plain := self._plain_lines(data)) is not None:
            return plain
        lines: list[str] = []
        *whole, self._rest = (self._rest + data).split(b"\n")
        for line in whole:
            lines += self._complete(line)
        *states, self._rest = self._rest.split(b"\r")
        if latest := _latest(states):
            self._held, self._returned = latest, False
        if self._held and now - self._last_redraw >= _REDRAW_PERIOD:
            lines += _cut(self._held)
            self._held, self._returned = b"", True
            self._last_redraw = now
        while len(self._rest) > _LONGEST_LINE:
            end = _cut_position(self._rest)
            lines.append(_text(self._rest[:end]))
            self._rest = self._rest[end:]
        return lines

    def take_rest(self) -> bytes:
        """Take away the beginning of the line that has not ended yet, as it was printed."""
        rest, self._rest = self._rest, b""
        return rest

    def finish(self) -> list[str]:
        """What is left at the end of the stream: a last line without its newline."""
        rest = self._rest or self._held
        self._rest = self._held = b""
        return _cut(rest) if rest else []

    def _plain_lines(self, data: bytes) -> list[str] | None:
        """What ``feed`` returns, at a fraction of the time, for whole lines of a usual length that
        do not redraw themselves; None if there is anything else.
        """
        end = data.rfind(b"\n")
        if end < 0 or len(data) - end > _LONGEST_LINE or b"\r" in data:
            return None
        if self._held or self._returned:  # a line that redraws itself has begun
            return None
        whole = self._rest + data[: end + 1]
        if len(whole) > _LONGEST_LINE and max(map(len, whole.split(b"\n"))) > _LONGEST_LINE:
            return None
        self._rest = data[end + 1 :]
        return printable_lines(_decoded(whole))

    def _complete(self, line: bytes) -> list[str]:
        """The last state of a line whose newline has come; nothing if it was returned already."""
        latest = _latest(line.split(b"\r")) or self._held
        returned, self._held, self._returned = self._returned, b"", False
        return [] if returned and not latest else _cut(latest)


def _latest(states: list[bytes]) -> bytes:
    """The last state that is not empty.

    At its end a progress bar often erases itself, or moves to the start of the line.
    """
    return next((state for state in reversed(states) if state), b"")


def _cut(line: bytes) -> list[str]:
    pieces = []
    while len(line) > _LONGEST_LINE:
        end = _cut_position(line)
        pieces.append(_text(line[:end]))
        line = line[end:]
    return [*pieces, _text(line)]


def _cut_position(line: bytes) -> int:
    """Where to cut an overlong line: as late as possible, and not inside a UTF-8 character."""
    end = _LONGEST_LINE
    while end > _LONGEST_LINE - 3 and line[end] & 0xC0 == 0x80:
        end -= 1
    return end


def _text(line: bytes) -> str:
    return printable(_decoded(line))


def _decoded(data: bytes) -> str:
    """``data`` as text, with escapes for what is not UTF-8.

    It is what the handler "backslashreplace" gives, which is called for each byte and takes long.
    """
    text = data.decode("utf-8", errors="surrogateescape")
    return text if text.isascii() else _NOT_UTF8.sub(_escaped_bytes, text)


def _escaped_bytes(found: re.Match[str]) -> str:
    return "".join([_BYTES[ord(one) - 0xDC80] for one in found[0]])
