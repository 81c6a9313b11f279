"""``Backlog``: the end of what a stream prints while nobody can take it, and how much came before.

It is pure: bytes go in and come out. This module imports nothing.
"""

from __future__ import annotations

__all__ = ["Backlog"]

# Bytes that are kept at least: some thousands of lines, and so what came last before a failure.
_KEPT = 256 * 1024


class Backlog:
    """What a stream prints from ``begun`` on, which is the beginning of a line.

    Of more than ``kept`` bytes the first are left out, up to the end of a line. ``lines`` and
    ``size`` count what was left out: ends of lines, and bytes. Of a line that is longer than
    ``kept`` a part may be left out, which only ``size`` counts.
    """

    def __init__(self, begun: bytes = b"", kept: int = _KEPT) -> None:
        self.lines = 0
        self.size = 0
        self._most = kept
        self._kept = bytearray(begun)

    def add(self, data: bytes) -> None:
        """Take what the stream has printed now."""
        self._kept += data
        # At twice the size: to cut off little each time would move the rest each time.
        if len(self._kept) > 2 * self._most:
            excess = len(self._kept) - self._most
            end = self._kept.rfind(b"\n", 0, excess) + 1
            if len(self._kept) - end > 2 * self._most:
                end = excess  # inside of a line that is too long to be kept
            self.lines += self._kept.count(b"\n", 0, end)
            self.size += end
            del self._kept[:end]

    @property
    def kept(self) -> bytes:
        """The end of what was printed: all of it, if nothing was left out."""
        return bytes(self._kept)
