"""What Linux knows of processes: who descends from whom, who carries a job's mark, and how to end
them.

A worker may start children, put them in sessions of their own and die before they do. Three facts
find them all the same: a child inherits its session unless it leaves it, its parent's number while
the parent lives, and its environment (``LLUTIL_JOB``, the job's mark) even when it left both. All
three are read from ``/proc``. This module may import nothing but the standard library and
``llutil.system.job_mark``; it never raises for a process that is already gone, and never signals a
process that it did not find by one of these facts.
"""

from __future__ import annotations

import os
import signal
import time

from llutil.system.job_mark import MARK

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = [
    "MARK",
    "STOPPING",
    "ProcessStat",
    "began",
    "die_with_parent",
    "end_all",
    "family",
    "marked",
    "session_members",
    "signal_process",
]

STOPPING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)
"""The signals that ask a job to stop: the list that torch 2.13 handles by default."""

_PR_SET_PDEATHSIG = 1
_EMPTY_LOOKS = (
    3  # at /proc, which is read a piece at a time: what forks meanwhile can be missed by one
)
_PIECE = 1 << 16  # bytes read at once
_SWEEP_PERIOD = 0.01  # seconds between two looks at /proc while killed processes fall


class ProcessStat:
    """One process as ``/proc/<pid>/stat`` has it (proc(5)): numbers only, no name.

    No dataclass: a guardian would import what makes those, before it can do anything.
    """

    __slots__ = ("parent", "pid", "session", "state")

    def __init__(self, pid: int, parent: int, session: int, state: str) -> None:
        self.pid, self.parent, self.session, self.state = pid, parent, session, state


def _pids() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]  # noqa: PTH208 - numbers


def _content(pid: int, name: str) -> bytes:
    """A file of the process's folder; empty if the process is gone, or another user's.

    Without ``pathlib`` and Python's file objects: a host may have thousands of processes, and every
    end of a round looks at all of them several times.
    """
    try:
        fd = os.open(f"/proc/{pid}/{name}", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return b""
    try:
        content = piece = os.read(fd, _PIECE)
        while piece:  # a short read is not yet the end of such a file
            piece = os.read(fd, _PIECE)
            content += piece
    except OSError:
        return b""  # it ended while we looked
    finally:
        os.close(fd)
    return content


def _relations() -> dict[int, ProcessStat]:
    found: dict[int, ProcessStat] = {}
    for pid in _pids():
        stat = _content(pid, "stat").decode("ascii", errors="replace")
        if not stat:
            continue
        # The name in brackets may itself hold brackets and spaces; the fields start after the last
        # one.
        fields = stat[stat.rindex(")") + 2 :].split(maxsplit=4)
        found[pid] = ProcessStat(pid, int(fields[1]), int(fields[3]), fields[0])
    return found


def began(pid: int) -> str:
    """When the process of that number began, in the kernel's ticks; empty if there is none, or it
    has ended.

    Together with the number it means one process for ever, until the machine starts anew.
    """
    stat = _content(pid, "stat").decode("ascii", errors="replace")
    state, *fields = stat[stat.rindex(")") + 2 :].split() if stat else ["Z"]
    return "" if state in "ZX" else fields[18]


def session_members(leaders: Iterable[int]) -> set[int]:
    """Living processes (no zombies) in the sessions that ``leaders`` lead."""
    wanted = set(leaders)
    return {r.pid for r in _relations().values() if r.session in wanted and r.state not in "ZX"}


def family(sessions: Iterable[int]) -> tuple[set[int], set[int]]:
    """The living members of ``sessions`` with all their descendants, and every session these are
    in.

    Sessions and not pids are the roots: the kernel gives a session's number to nobody else while it
    has a member, so a pid that was used again by a stranger is never taken for ours.
    """
    relations = _relations()
    known = set(sessions)
    members: set[int] = set()
    grown = True
    while grown:
        more = {
            r.pid
            for r in relations.values()
            if r.pid not in members and (r.session in known or r.parent in members)
        }
        members |= more
        known |= {relations[pid].session for pid in more}
        grown = bool(more)
    return {pid for pid in members if relations[pid].state not in "ZX"}, known


def marked(mark: str) -> set[int]:
    """Living processes, this one excepted, whose environment says ``LLUTIL_JOB=<mark>``."""
    needle = f"{MARK}={mark}".encode()
    found = set()
    for pid in _pids():
        environment = _content(pid, "environ")
        if needle in environment and needle in environment.split(b"\0") and pid != os.getpid():
            found.add(pid)
    return found


def signal_process(pid: int, number: int) -> bool:
    """Send a signal; False if the process is gone."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return False
    return True


def end_all(
    sessions: Iterable[int], mark: str, deadline: float, spare: Iterable[int] = ()
) -> set[int]:
    """Kill, with SIGKILL, the families of ``sessions`` and all that carries ``mark``; wait until
    they are gone.

    This process and those in ``spare`` stay. A process may fork between two looks, or behind the
    back of one, so looking goes on until nothing was found several times running. ``deadline`` is
    on ``time.monotonic()``. Returns those that were still there then (in an uninterruptible sleep,
    say).
    """
    known = set(sessions)
    spared = {os.getpid(), *spare}
    empty = 0
    while True:
        members, known = family(known)
        living = (members | marked(mark)) - spared
        empty = 0 if living else empty + 1
        if empty == _EMPTY_LOOKS or time.monotonic() > deadline:
            return living
        if not living:
            continue
        for pid in living:
            signal_process(pid, signal.SIGKILL)
        time.sleep(_SWEEP_PERIOD)


def die_with_parent(parent: int) -> None:
    """Have the kernel kill this process when the thread that started it ends (prctl(2),
    PR_SET_PDEATHSIG).

    SIGKILL and not SIGINT, which torch uses: an inherited "ignore" makes SIGINT useless. ``parent``
    is the starter's pid: if it is gone already, this process ends at once.
    """
    import ctypes  # which a guardian, that looks at processes too, need not have

    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)
