"""Progress on a terminal: its bottom line, below the part that scrolls.

Ranks write to the terminal themselves, and nobody sees when. So the line must not be where they
write: while it is shown, the terminal scrolls only the lines above it (DECSTBM, a VT100's scroll
region), as apt does it for the programs that it runs. Each change is one write, which the kernel
does not mix with others.

This module may import only the standard library, ``llutil.system`` and its own room.
"""

from __future__ import annotations

import os
import select
import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress

from llutil.progress.words import Steps, metrics_text, speed, summary
from llutil.system.terminal import is_ours

__all__ = ["TerminalLine", "has_room"]

_SAVE, _RESTORE = "\x1b7", "\x1b8"
_DOWN, _UP = "\x1bD", "\x1b[A"
_CLEAR = "\x1b[2K"
# The least size of a terminal that a line is taken from: columns and lines.
_COLUMNS, _LINES = 40, 4
# The rate is that of so many seconds, measured from points that are so many seconds apart.
_MARKS, _BETWEEN_MARKS = 6, 2.0


def has_room(fd: int) -> bool:
    """Whether the terminal ``fd`` can show the line; not one that does not say how large it is."""
    if os.environ.get("TERM", "dumb") == "dumb":
        return False
    try:
        columns, lines = os.get_terminal_size(fd)
    except OSError:
        return False
    return columns >= _COLUMNS and lines >= _LINES


class TerminalLine:
    """Shows progress on the bottom line of the terminal ``fd``.

    :param write: takes the line that remains when the job has ended.
    :param clock: gives seconds that only grow.
    """

    def __init__(
        self,
        fd: int,
        write: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._fd = fd
        self._write = write
        self._clock = clock
        self._size: tuple[int, int] | None = None
        """The terminal's size when the line was taken from it; None while it has all of its lines.
        """
        self._last: Steps = {}
        self._marks: deque[tuple[float, Steps]] = deque(maxlen=_MARKS)

    def begin(self, nodes: int) -> None:
        """A round has begun. Each node has a terminal of its own, so their number is no matter."""
        del nodes
        self._marks.clear()

    def show(self, ranks: Steps, metrics: Mapping[str, float]) -> None:
        """Draw the line, if the terminal is this job's now and takes it at once."""
        now = self._clock()
        self._last = dict(ranks)
        if not self._marks or now - self._marks[-1][0] >= _BETWEEN_MARKS:
            self._marks.append((now, self._last))
        if not (has_room(self._fd) and is_ours(self._fd)):
            return
        size = tuple(os.get_terminal_size(self._fd))
        rate = speed(ranks, now, *self._marks[0])
        text = f"{summary(ranks)}{rate}{metrics_text(metrics)}"
        # A name may hold what moves the cursor, or is two columns wide.
        text = "".join(letter if " " <= letter <= "~" else "?" for letter in text)
        columns, lines = size
        take = ""
        if size != self._size:
            # First make sure that there is a line below the cursor.
            take = f"{self._given_back()}{_DOWN}{_UP}{_SAVE}\x1b[1;{lines - 1}r{_RESTORE}"
        if self._send(f"{take}{_SAVE}\x1b[{lines};1H{_CLEAR}{text[: columns - 1]}{_RESTORE}"):
            self._size = (columns, lines)

    def hide(self) -> None:
        """Give the line back to the terminal until the next ``show``."""
        if self._size is not None and self._send(self._given_back()):
            self._size = None

    def close(self) -> None:
        """Give the line back, and write the last state as a line of its own."""
        self.hide()
        last, self._last = self._last, {}
        if last:
            self._write(summary(last))

    def _given_back(self) -> str:
        if self._size is None:
            return ""
        return f"{_SAVE}\x1b[r\x1b[{self._size[1]};1H{_CLEAR}{_RESTORE}"

    def _send(self, text: str) -> bool:
        """Write ``text``. A terminal that is paused or gone must not block the agent or end it."""
        poll = select.poll()
        with suppress(OSError):
            poll.register(self._fd, select.POLLOUT)
            if poll.poll(0) == [(self._fd, select.POLLOUT)]:
                data = text.encode()
                return os.write(self._fd, data) == len(data)
        return False
