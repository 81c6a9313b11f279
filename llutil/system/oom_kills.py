"""Whether the kernel killed a process for lack of memory: the memory cgroup counts such kills.

A process that the out-of-memory killer ends dies of a plain SIGKILL. Only the count ``oom_kill`` of
its memory cgroup tells the two apart: in ``memory.events`` (cgroup v2) or ``memory.oom_control``
(v1). The kernel counts before it sends the signal, so the count has risen when the death is seen
(Linux, mm/oom_kill.c). Version 2 also counts the kills in all groups below; version 1 counts those
in the victim's own group only. Workers start in their agent's group.

Tests pass their own folder as ``proc``. This module may import only the standard library. It raises
nothing: where nothing can be read, the answer is None.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

__all__ = ["PROC", "KillCount", "OomWatch"]

PROC = Path("/proc")
_COUNT = re.compile(r"^oom_kill (\d+)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class KillCount:
    """``kills`` processes were killed for lack of memory; ``where`` says what counted them.

    ``where`` is "the memory cgroup <folder>" or "this machine".
    """

    where: str
    kills: int


class OomWatch:
    """Counts the out-of-memory kills, since it was made, in the memory cgroup of process ``pid``.

    It reads the nearest group, from the process's own upwards, whose count can be read: a group
    further up also counts its other children. Without memory cgroups it reads the count of the
    whole machine.
    """

    def __init__(self, pid: int | str = "self", proc: Path | None = None) -> None:
        self._file: Path | None = None
        self._where = ""
        self._before = 0
        for file, where in _counters(pid, proc or PROC):
            count = _count(file)
            if count is not None:
                self._file, self._where, self._before = file, where, count
                break

    def kills(self) -> KillCount | None:
        """The kills so far; None if they cannot be read."""
        count = _count(self._file) if self._file is not None else None
        if count is None:
            return None
        return KillCount(self._where, max(0, count - self._before))


def _count(file: Path) -> int | None:
    with suppress(OSError, ValueError):
        found = _COUNT.search(file.read_text(encoding="ascii"))
        if found:
            return int(found[1])
    return None


def _counters(pid: int | str, proc: Path) -> Iterator[tuple[Path, str]]:
    """Files that may hold the count, the best first, each with the words for what it counts."""
    groups = dict(_groups(pid, proc))
    for root, mount, v1 in _mounts(proc):
        group = groups.get(v1)
        if group is None:
            continue
        for folder in _upwards(group, root):
            file = mount / folder / ("memory.oom_control" if v1 else "memory.events")
            yield file, f"the memory cgroup {file.parent}"
    yield proc / "vmstat", "this machine"


def _groups(pid: int | str, proc: Path) -> Iterator[tuple[bool, str]]:
    """The groups of a process, from ``/proc/<pid>/cgroup`` (cgroups(7)).

    Gives pairs: whether the group is of version 1, and its path.
    """
    with suppress(OSError, ValueError):
        for line in _lines(proc / str(pid) / "cgroup"):
            _, controllers, path = line.split(":", 2)
            if "memory" in controllers.split(","):
                yield True, path
            elif not controllers:
                yield False, path


def _mounts(proc: Path) -> list[tuple[str, Path, bool]]:
    """The mounts of memory cgroups; those of version 1 come first.

    Gives triples: the group at the mount's root, the mount's folder, whether it is of version 1. In
    a system that has both versions, the memory controller belongs to version 1.
    """
    found = []
    with suppress(OSError, ValueError, IndexError):
        for line in _lines(proc / "self" / "mountinfo"):
            before, _, after = line.partition(" - ")
            fields, (kind, _, options) = before.split(), after.split(" ", 2)
            v1 = kind == "cgroup" and "memory" in options.split(",")
            if v1 or kind == "cgroup2":
                found.append((fields[3], Path(fields[4]), v1))
    return sorted(found, key=lambda mount: not mount[2])


def _lines(file: Path) -> list[str]:
    """The lines of a file of the kernel's. A name in it, as of a folder that a disk is mounted at,
    may be no UTF-8, and hold what else ends a line for Python.
    """
    return file.read_bytes().decode(errors="replace").removesuffix("\n").split("\n")


def _upwards(group: str, root: str) -> Iterator[str]:
    """The folder of ``group`` below a mount of the group ``root``, then each folder above it.

    The last one is the mount's own folder.
    """
    try:
        inside = PurePosixPath(group).relative_to(root)
    except ValueError:
        # The group lies outside the mount: only the mount's own group can be read.
        inside = PurePosixPath()
    if ".." not in inside.parts:
        yield from (
            str(folder) for folder in (inside, *inside.parents) if folder != PurePosixPath()
        )
    yield "."
