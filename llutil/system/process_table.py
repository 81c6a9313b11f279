"""What Linux says of the processes that run, read from ``/proc`` (proc(5)).

A process number alone names nobody for long: when a process has ended and was reaped, its number
becomes another's. The number and the start time together name one process, until the machine is
booted again. So whoever keeps a number keeps the start time with it.

This module only reads. It may import only the standard library. It never raises for a process that
is already gone. It does raise if it cannot look, for example because no descriptor is free.
"""

from __future__ import annotations

import os
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Container, Mapping

__all__ = [
    "EXEC_LONGEST",
    "Moment",
    "ProcessStat",
    "all_processes",
    "children_of_this_process",
    "command_of",
    "environment_has",
    "newest_number",
    "numbers_are_the_kernels",
    "session_members",
    "stat_of",
]

# Bytes read at once: of most files, and the most that an environment can have (execve(2)).
_CHUNK, _MOST = 1 << 16, 6 << 20
# Forks after which a number may be another process's: the kernel counts through 32,768 and more.
_MOST_FORKS = 1000
# Characters of a command line that a message repeats.
_LONGEST_COMMAND = 80
# Flags of a process that has no memory of its own: it ends, or is a thread of the kernel
# (PF_EXITING and PF_KTHREAD in the kernel's sched.h).
_WITHOUT_MEMORY = 0x4 | 0x200000
EXEC_LONGEST = 5.0
"""Seconds in which a process has started a program. On an idle machine that takes some 0.1 ms; on
one that stalls, seconds.
"""
_EXEC_PERIOD = 0.001  # seconds between two looks at such a process
# What the files of a process raise that is gone (ENOENT, ESRCH) or another user's (EACCES, EPERM).
_UNREADABLE = (FileNotFoundError, ProcessLookupError, PermissionError)


class ProcessStat:
    """One process as ``/proc/<pid>/stat`` describes it, without its name.

    ``start`` is when it started, in the kernel's ticks since boot, and ``ticks`` is the processor
    time that it and its ended children have used. ``flags`` are the kernel's. It is not a
    dataclass: the guardian would have to import ``dataclasses`` before it can do anything.
    """

    __slots__ = ("flags", "group", "parent", "pid", "session", "start", "state", "threads", "ticks")

    def __init__(
        self,
        pid: int,
        *,
        parent: int,
        group: int,
        session: int,
        state: str = "S",
        threads: int = 1,
        start: int = 0,
        ticks: int = 0,
        flags: int = 0,
    ) -> None:
        self.pid, self.parent, self.group, self.session = pid, parent, group, session
        self.state, self.threads, self.start = state, threads, start
        self.ticks, self.flags = ticks, flags

    @property
    def key(self) -> tuple[int, int]:
        """The number and the start: nobody else's."""
        return self.pid, self.start

    @property
    def lives(self) -> bool:
        """Whether it runs. A zombie does not, unless threads of it outlive the first one."""
        return self.state not in "ZX" or self.threads > 1

    @property
    def has_memory(self) -> bool:
        """Whether it has memory of its own, and so an environment."""
        return not self.flags & _WITHOUT_MEMORY


class Moment:
    """A moment, by the numbers that processes had got until then."""

    __slots__ = ("_forks", "_newest")

    def __init__(self) -> None:
        # In this order: one that is forked meanwhile counts as newer.
        self._forks, self._newest = _forks(), newest_number()

    def newer(self) -> range | None:
        """The numbers of all processes that were forked since; None if that cannot be said: the
        numbers are not the kernel's, or it may have begun from the lowest again.
        """
        newest, forks = newest_number(), _forks()
        if newest < self._newest or not 0 <= forks - self._forks < _MOST_FORKS:
            return None
        return range(self._newest + 1, newest + 1) if self._forks else None


def all_processes(
    unchanged: Mapping[int, ProcessStat] | None = None, only: Container[int] | None = None
) -> dict[int, ProcessStat]:
    """Every process that is there, by its number, or those that are in ``only``. One that is forked
    meanwhile may be missing.

    Of those in ``unchanged`` nothing is read again.
    """
    found: dict[int, ProcessStat] = {}
    for name in os.listdir("/proc"):  # noqa: PTH208 - numbers are wanted, and quickly
        if name.isdigit():
            pid = int(name)
            if only is not None and pid not in only:
                continue
            stat = unchanged.get(pid) if unchanged else None
            if (stat := stat or stat_of(pid)) is not None:
                found[pid] = stat
    return found


def stat_of(pid: int) -> ProcessStat | None:
    """The process ``pid``; None if there is none."""
    stat = _content(pid, "stat").decode("ascii", errors="replace")
    if not stat:
        return None
    # The name in brackets may itself hold brackets and spaces: fields start after the last one.
    fields = stat[stat.rindex(")") + 2 :].split(maxsplit=20)
    return ProcessStat(
        pid,
        parent=int(fields[1]),
        group=int(fields[2]),
        session=int(fields[3]),
        state=fields[0],
        threads=int(fields[17]),
        start=int(fields[19]),
        ticks=sum(map(int, fields[11:15])),
        flags=int(fields[6]),
    )


def newest_number() -> int:
    """The number that was last given to a process or a thread (proc(5), ``loadavg``); 0 if that is
    not shown.
    """
    content = _content_of("/proc/loadavg")
    return int(content.split()[4]) if content else 0


def _forks() -> int:
    """How many processes and threads were forked since the kernel started (proc(5), ``stat``); 0 if
    it does not say.
    """
    _, _, after = _content_of("/proc/stat").partition(b"\nprocesses ")
    return int(after.split(maxsplit=1)[0]) if after else 0


def numbers_are_the_kernels() -> bool:
    """Whether ``newest_number`` changes with each fork. It does not where a container shows a file
    of its own in that place (lxcfs), a kernel in a sandbox does not count (gVisor), or ``/proc``
    shows processes only (the mount option ``subset=pid``, systemd's ProcSubset=).
    """
    try:
        file, proc = (os.stat(path) for path in ("/proc/loadavg", "/proc"))  # noqa: PTH116 - above
    except _UNREADABLE:
        return False
    return file.st_dev == proc.st_dev and newest_number() > 0


def session_members(leaders: set[int]) -> set[int]:
    """The living processes in the sessions that ``leaders`` lead."""
    return {stat.pid for stat in all_processes().values() if stat.session in leaders and stat.lives}


def environment_has(pid: int, variables: tuple[bytes, ...], *, until: float) -> bytes | None:
    """Which of ``variables``, each ``NAME=value``, the process's environment has; None if none.

    That is the environment which the process was started with. Only the user's own processes show
    theirs. One that starts a program has none for a moment, and is waited for ``until`` then
    (``time.monotonic()``).
    """
    environment = _environment(pid)
    while not environment and _starts_a_program(pid) and time.monotonic() < until:
        time.sleep(_EXEC_PERIOD)
        environment = _environment(pid)
    for variable in variables:
        if variable in environment and variable in environment.split(b"\0"):
            return variable
    return None


def command_of(pid: int) -> str:
    """The command line of the process, for people, or its name in brackets if it has none."""
    words = _content(pid, "cmdline").split(b"\0")
    line = b" ".join(words).decode(errors="backslashreplace").strip()
    if not line:
        line = f"[{_content(pid, 'comm').decode(errors='backslashreplace').strip()}]"
    line = line if line.isprintable() else ascii(line)[1:-1]
    return line if len(line) <= _LONGEST_COMMAND else f"{line[: _LONGEST_COMMAND - 3]}..."


def children_of_this_process() -> list[int]:
    """The numbers of this process's children, zombies too; none if the kernel does not list them.

    The kernel lists them if it was built with CONFIG_PROC_CHILDREN, as those of distributions are.
    """
    found: list[int] = []
    for thread in os.listdir("/proc/self/task"):  # noqa: PTH208 - as above
        found += map(int, _content(os.getpid(), f"task/{thread}/children").split())
    return found


def _environment(pid: int) -> bytes:
    """The process's environment, whole: of one that starts a program meanwhile, a second read would
    find nothing more.
    """
    environment = _content(pid, "environ")
    return environment if len(environment) < _CHUNK else _content(pid, "environ", _MOST)


def _starts_a_program(pid: int) -> bool:
    """Whether a process whose environment was empty is in the midst of execve(2), or was: its new
    memory has no environment yet (``begin_new_exec`` and ``create_elf_tables`` in the kernel).

    The environment first has no address, then a beginning that is its end, too, while it is counted
    (``create_elf_tables``). The address of the program's code is set last (``load_elf_binary``).
    """
    stat = stat_of(pid)
    if stat is None or not stat.lives or not stat.has_memory:
        return False
    fields = _content(pid, "stat").rpartition(b")")[2].split()
    code, begin, end = (fields[23], *fields[47:49]) if fields else (b"1", b"1", b"1")
    if begin == end != b"0" and code != b"0":
        return False  # it has none
    try:  # only the user's own processes show theirs
        os.close(os.open(f"/proc/{pid}/environ", os.O_RDONLY | os.O_CLOEXEC))
    except _UNREADABLE:
        return False
    return True


def _content(pid: int, name: str, piece: int = _CHUNK) -> bytes:
    """A file of the process's folder; empty if the process is gone, or another user's."""
    return _content_of(f"/proc/{pid}/{name}", piece)


def _content_of(path: str, piece: int = _CHUNK) -> bytes:
    """The file ``path``; empty if it is not shown.

    It uses neither ``pathlib`` nor Python's file objects: a machine may have thousands of
    processes, and every end of a round looks at all of them several times.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except _UNREADABLE:
        return b""
    try:
        content = chunk = os.read(fd, piece)
        while chunk:  # a short read does not mean that such a file has ended
            chunk = os.read(fd, piece)
            content += chunk
    except _UNREADABLE:
        return b""  # the process ended meanwhile
    finally:
        os.close(fd)
    return content
