"""Counts what the interpreter does, for tests of what something costs: no clock, and the same count
on every machine.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

__all__ = ["Steps", "steps_of"]


class Steps:
    """Counts the interpreter's instructions while ``counting``. What a built-in function does is
    one of them.
    """

    def __init__(self) -> None:
        self.count = 0

    def _trace(self, frame: FrameType, event: str, _: Any) -> Any:
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        self.count += event == "opcode"
        return self._trace

    @contextmanager
    def counting(self) -> Iterator[None]:
        """What is done meanwhile counts."""
        before, collects = sys.gettrace(), gc.isenabled()
        gc.disable()  # what a collection calls would count too, whenever it comes
        sys.settrace(self._trace)
        try:
            yield
        finally:
            sys.settrace(before)
            if collects:
                gc.enable()


def steps_of(act: Callable[[], object]) -> int:
    """How many instructions ``act`` takes."""
    steps = Steps()
    with steps.counting():
        act()
    return steps.count
