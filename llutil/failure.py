"""One rank's failure as a value: whose it was, where, what it was, and the words that explain it;
and the classes of failures.

The agent of the rank makes it, the ledger carries it to the other nodes, and every node's report
begins with the first one of the whole job. Its texts are bounded when it is made, so that it fits
into any store and onto a screen: ``bounded`` cuts them. This module may import nothing but the standard library.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

__all__ = ["Failure", "FailureClass", "bounded", "without_native_frames"]

_LONGEST_LINE = 300  # characters
_NATIVE = re.compile(r"\s*frame #\d+: ")
_NATIVE_HEAD = "Exception raised from "


class FailureClass(StrEnum):
    """Why a job ended, in the words that a retry policy needs.

    A failed rank is classified by ``llutil.agent.failures.classify``, whose table says what belongs
    where and why.
    """

    INFRASTRUCTURE = "infrastructure"
    """The store, the network, a node, or whoever kills with SIGKILL."""
    PREEMPTION = "preemption"
    """Somebody asked for the end: a stop, or a signal that asks."""
    OUT_OF_MEMORY = "out of memory"
    """An allocation failed, or the kernel killed a rank and its memory cgroup counted that."""
    HANG = "hang"
    """A collective or a wait for other ranks ran into its timeout."""
    USER_CODE = "user code"
    """Exceptions, exit codes, and crashes of native code."""
    BAD_CONFIGURATION = "bad configuration"
    """The user's code never began."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """How one rank failed.

    ``group_rank`` is its node's place in the round, ``label`` what people call the node (may be
    empty). ``restart`` of ``max_restarts`` had been used when it failed. ``exit_status`` is
    negative for a signal. ``reason`` is one line, ``trace`` the exception with its traceback or its
    whole message (may be empty), ``tail`` the last lines of its standard error that ``trace`` does
    not hold. ``echo`` says that it only tells of a peer that went away: the cause is another rank's
    failure. ``step`` is the furthest step that any rank of its node had reported since its agent
    began, restarts included; 0 means that none was known to have made its first one.
    """

    rank: int
    local_rank: int
    group_rank: int
    label: str
    host: str
    pid: int
    restart: int
    max_restarts: int
    exit_status: int
    failure_class: FailureClass
    reason: str
    trace: str = ""
    tail: tuple[str, ...] = ()
    echo: bool = False
    step: int = 0

    @property
    def node(self) -> str:
        """The node in words."""
        return f"node {self.group_rank} {self.label!r}" if self.label else f"node {self.group_rank}"

    @property
    def place(self) -> str:
        """Whose failure it was, in one line."""
        return (
            f"rank {self.rank} (local rank {self.local_rank}) of {self.node} on {self.host}, pid {self.pid}, "
            f"after {self.restart} of {self.max_restarts} restarts"
        )


def bounded(lines: Iterable[str], most: int, size: int, *, ends: bool = False) -> list[str]:
    """``lines``, cut to ``most`` lines that take at most ``size`` bytes as JSON, with a line for
    what was left out.

    Both ends are kept, since a traceback begins where the user looks and ends with the error; with
    ``ends``, only the end. What is longer than 300 characters is cut.
    """
    short = [_short(line) for line in lines]
    if len(short) <= most and sum(map(_size, short)) <= size:
        return short
    room, places = size - _size(_left_out(len(short))), most - 1
    head: list[str] = []
    tail: list[str] = []
    first, last = 0, len(short) - 1
    while first <= last and places > 0:
        backwards = ends or len(tail) <= len(head)
        line = short[last if backwards else first]
        room -= _size(line)
        if room < 0:
            break
        places -= 1
        if backwards:
            tail.insert(0, line)
            last -= 1
        else:
            head.append(line)
            first += 1
    left_out = last - first + 1
    return [*head, *([_left_out(left_out)] if left_out else []), *tail]


def without_native_frames(lines: Sequence[str]) -> list[str]:
    """``lines`` with each run of C++ frames, which torch puts into messages, folded to one line."""
    kept: list[str] = []
    frames = 0
    for line in lines:
        if _NATIVE.match(line):
            frames += 1
            continue
        if frames:
            kept.append(_folded(frames))
            frames = 0
        if line.startswith(_NATIVE_HEAD):
            line = line.removesuffix(" (most recent call first):")  # noqa: PLW2901 - the same line, shorter
        kept.append(line)
    return [*kept, _folded(frames)] if frames else kept


def _folded(frames: int) -> str:
    return f"  ... {frames} C++ frames left out ..."


def _left_out(count: int) -> str:
    return f"  ... {count} lines left out ..."


def _short(line: str) -> str:
    return line if len(line) <= _LONGEST_LINE else f"{line[:_LONGEST_LINE]} ..."


def _size(line: str) -> int:
    """Bytes that the line takes in JSON of ASCII, with its newline."""
    return len(json.dumps(line))
