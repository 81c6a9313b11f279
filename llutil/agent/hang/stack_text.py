"""Stacks of Python threads: read from the text of faulthandler or py-spy, and written for people.

This module may import only the standard library.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Frame", "Stack", "of_faulthandler", "of_py_spy", "waits_for_ranks", "written"]

_FAULT_FRAME = re.compile(r'  File "(.*)", line (\d+|\?\?\?) in (.*)')

# Parts of paths. A rank whose innermost frames are in one of these files waits for other ranks,
# as far as its Python stack can tell: DDP reduces gradients inside ``backward``, and a checkpoint
# or a pause of ours waits too.
_COLLECTIVES = (
    "/torch/distributed/",
    "/torch/nn/parallel/distributed.py",
    "/llutil/checkpoints/",
    "/llutil/events/futex.py",
)
_MAY_WAIT = ("/torch/autograd/graph.py", "/torch/cuda/__init__.py", "/torch/cuda/streams.py")
_LAUNCHER = "/llutil/agent/worker_side/"
# How many of the innermost frames are looked at: torch wraps its collectives in functions.
_INNERMOST = 3


@dataclass(frozen=True, slots=True)
class Frame:
    """One call. ``line`` is 0 if it is not known."""

    file: str
    line: int
    function: str


@dataclass(frozen=True, slots=True)
class Stack:
    """The threads of a process, each with its innermost call first; the main thread comes first."""

    threads: tuple[tuple[Frame, ...], ...]

    @property
    def main(self) -> tuple[Frame, ...]:
        """The main thread."""
        return self.threads[0]


def of_faulthandler(text: str) -> Stack | None:
    """What ``faulthandler.dump_traceback`` has written of all threads; None if that is nothing.

    It writes the newest thread first, so the main thread is the last one (CPython 3.11).
    """
    threads: list[list[Frame]] = []
    for line in text.split("\n"):
        if line.endswith("(most recent call first):"):
            threads.append([])
        elif threads and (match := _FAULT_FRAME.fullmatch(line)):
            number = int(match[2]) if match[2].isdecimal() else 0
            threads[-1].append(Frame(match[1], number, match[3]))
    return _stack(list(reversed(threads)))


def of_py_spy(text: str) -> Stack | None:
    """What ``py-spy dump`` has printed (0.4); None if it shows no thread."""
    threads: list[list[Frame]] = []
    main = 0
    for line in text.split("\n"):
        if line.startswith("Thread "):
            if line.endswith('"MainThread"'):
                main = len(threads)
            threads.append([])
        elif threads and line.startswith("    ") and line.endswith(")"):
            function, _, place = line[4:-1].partition(" (")
            file, _, number = place.rpartition(":")
            known = number.isdecimal()
            threads[-1].append(
                Frame(file if known else place, int(number) if known else 0, function)
            )
    if threads:
        threads.insert(0, threads.pop(main))
    return _stack(threads)


def _stack(threads: Sequence[Sequence[Frame]]) -> Stack | None:
    return Stack(tuple(map(tuple, threads))) if threads and threads[0] else None


def waits_for_ranks(stack: Stack) -> str:
    """The call in which a rank with this stack waits for other ranks; "" if it does not."""
    for frame in stack.main[:_INNERMOST]:
        if any(part in frame.file for part in _COLLECTIVES):
            return frame.function
    if any(part in stack.main[0].file for part in _MAY_WAIT):
        return stack.main[0].function
    return ""


def written(threads: Sequence[Sequence[Frame]], most: int) -> list[str]:
    """Lines that show ``threads``, the innermost call first, with ``most`` calls of each. The calls
    of the launcher, which are around the user's code, are left out.
    """
    lines: list[str] = []
    for number, calls in enumerate(threads):
        outer = (place for place, one in enumerate(calls) if _LAUNCHER in one.file)
        frames = calls[: next(outer, len(calls)) or len(calls)]
        if number:
            lines.append("  another thread:")
        lines += [
            f'  File "{one.file}", line {one.line or "?"}, in {one.function}'
            for one in frames[:most]
        ]
        if len(frames) > most:
            lines.append(f"  ... {len(frames) - most} outer calls left out ...")
    return lines
