"""``FramePdb``: pdb that stops first in the frame that asked for it, and nowhere before.

After ``pdb.set_trace`` Python's pdb stops at whatever is executed next (3.11). That may be another
function than the one that called ``breakpoint()``: a finalizer, or a callback of the garbage
collector, which run at any moment. This module may import only the standard library.
"""

from __future__ import annotations

import pdb
from types import FrameType

__all__ = ["FramePdb"]


class FramePdb(pdb.Pdb):
    """pdb whose ``set_trace(frame)`` stops at the next line of ``frame``, or at its end."""

    _first: FrameType | None = None

    def set_trace(self, frame: FrameType | None = None) -> None:
        """Begin in ``frame``; without one, where pdb begins."""
        self._first = frame
        super().set_trace(frame)

    def set_step(self) -> None:
        """Stop at what comes next; the first time, in the frame. ``set_trace`` calls it before it
        has Python tell of anything (3.11 and 3.12; in 3.13 it stops in the frame by itself).
        """
        first, self._first = self._first, None
        if first is None:
            super().set_step()
        else:
            self.set_next(first)
