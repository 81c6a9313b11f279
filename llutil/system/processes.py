"""Finds and ends processes on Linux: who descends from whom, and who carries a job's mark.

A worker may start children, put them in sessions of their own, and die before they do. Three facts
find them all the same. A child inherits its session unless it leaves it. It has its parent's pid
while the parent lives. And it inherits the environment, with the job's mark, even when it left the
session and the parent is gone. All three are read from ``/proc``.

This module may import only the standard library and ``llutil.system.job_mark``. It never raises for
a process that is already gone. It never signals a process that it did not find by one of these
facts.
"""

from __future__ import annotations

import os
import signal
import time

from llutil.system.job_mark import MARK_VARIABLE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = [
    "MARK_VARIABLE",
    "STOP_SIGNALS",
    "ProcessStat",
    "die_with_parent",
    "kill_all",
    "processes_with_mark",
    "session_members",
    "session_trees",
    "signal_process",
    "start_ticks",
]

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)
"""The signals that ask a job to stop: the list that torch 2.13 handles by default."""

_PR_SET_PDEATHSIG = 1
# Looks at /proc in a row that must find nothing. /proc is read a piece at a time, so one look can
# miss a process that is forked meanwhile.
_EMPTY_LOOKS = 3
# Bytes read at once.
_CHUNK = 1 << 16
# Seconds between two looks at /proc while killed processes end.
_LOOK_PERIOD = 0.01


class ProcessStat:
    """One process as ``/proc/<pid>/stat`` describes it (proc(5)), without its name.

    It is not a dataclass: the guardian would have to import ``dataclasses`` before it can do
    anything.
    """

    __slots__ = ("parent", "pid", "session", "state")

    def __init__(self, pid: int, parent: int, session: int, state: str) -> None:
        self.pid, self.parent, self.session, self.state = pid, parent, session, state


def _pids() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]  # noqa: PTH208 - numbers


def _content(pid: int, name: str) -> bytes:
    """A file of the process's folder; empty if the process is gone, or another user's.

    It uses neither ``pathlib`` nor Python's file objects: a machine may have thousands of
    processes, and every end of a round looks at all of them several times.
    """
    try:
        fd = os.open(f"/proc/{pid}/{name}", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return b""
    try:
        content = chunk = os.read(fd, _CHUNK)
        while chunk:  # a short read does not mean that such a file has ended
            chunk = os.read(fd, _CHUNK)
            content += chunk
    except OSError:
        return b""  # the process ended meanwhile
    finally:
        os.close(fd)
    return content


def _all_stats() -> dict[int, ProcessStat]:
    found: dict[int, ProcessStat] = {}
    for pid in _pids():
        stat = _content(pid, "stat").decode("ascii", errors="replace")
        if not stat:
            continue
        # The name in brackets may itself hold brackets and spaces: fields start after the last one.
        fields = stat[stat.rindex(")") + 2 :].split(maxsplit=4)
        found[pid] = ProcessStat(pid, int(fields[1]), int(fields[3]), fields[0])
    return found


def start_ticks(pid: int) -> str:
    """When the process ``pid`` started, in the kernel's ticks since boot; empty if it has ended.

    The pid and this time together mean one process only, until the machine is booted again.
    """
    stat = _content(pid, "stat").decode("ascii", errors="replace")
    state, *fields = stat[stat.rindex(")") + 2 :].split() if stat else ["Z"]
    return "" if state in "ZX" else fields[18]


def session_members(leaders: Iterable[int]) -> set[int]:
    """The living processes (no zombies) in the sessions that ``leaders`` lead."""
    wanted = set(leaders)
    stats = _all_stats().values()
    return {stat.pid for stat in stats if stat.session in wanted and stat.state not in "ZX"}


def session_trees(sessions: Iterable[int]) -> tuple[set[int], set[int]]:
    """The living members of ``sessions`` and all their descendants; and all sessions these are in.

    The search starts at sessions and not at pids. The kernel gives a session's number to no other
    process while the session has a member. So a stranger that got a used pid is never found.
    """
    stats = _all_stats()
    known = set(sessions)
    members: set[int] = set()
    grown = True
    while grown:
        more = {
            stat.pid
            for stat in stats.values()
            if stat.pid not in members and (stat.session in known or stat.parent in members)
        }
        members |= more
        known |= {stats[pid].session for pid in more}
        grown = bool(more)
    return {pid for pid in members if stats[pid].state not in "ZX"}, known


def processes_with_mark(mark: str) -> set[int]:
    """The living processes whose environment has the job's mark ``mark``, without this process."""
    needle = f"{MARK_VARIABLE}={mark}".encode()
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


def kill_all(
    sessions: Iterable[int], mark: str, deadline: float, spare: Iterable[int] = ()
) -> set[int]:
    """Kill, with SIGKILL, the members and descendants of ``sessions`` and all that carry ``mark``.

    Waits until they are gone, but not after ``deadline`` (seconds on ``time.monotonic()``). This
    process and those in ``spare`` are not killed. A process may fork between two looks at /proc, or
    while one is made. So it looks until several looks in a row have found nothing.

    Returns the processes that were left at the deadline (in an uninterruptible sleep, say).
    """
    known = set(sessions)
    spared = {os.getpid(), *spare}
    empty = 0
    while True:
        members, known = session_trees(known)
        living = (members | processes_with_mark(mark)) - spared
        empty = 0 if living else empty + 1
        if empty == _EMPTY_LOOKS or time.monotonic() > deadline:
            return living
        if not living:
            continue
        for pid in living:
            signal_process(pid, signal.SIGKILL)
        time.sleep(_LOOK_PERIOD)


def die_with_parent(parent: int) -> None:
    """Have the kernel kill this process when the thread that started it ends.

    It uses prctl(2), PR_SET_PDEATHSIG, with SIGKILL. torch uses SIGINT, which does nothing if this
    process inherited that it is ignored. ``parent`` is the pid of the process that started this
    one: if it is gone already, this process ends at once.
    """
    import ctypes  # not at the top: a guardian, which looks at processes too, does not need it

    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)
