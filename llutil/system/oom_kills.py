"""Whether the kernel killed for lack of memory: the count that the memory cgroup keeps of it.

A process that the out-of-memory killer ends dies of a plain SIGKILL. What tells it from any other
is the count ``oom_kill`` of its memory cgroup: in ``memory.events`` (cgroup v2) or
``memory.oom_control`` (v1), counted before the signal is sent, so it has risen when the death is
seen (Linux, mm/oom_kill.c). Version 2 counts for all groups below too; version 1 counts for the
victim's own group alone. Workers start in their agent's group.

All paths start from ``proc``, so that tests bring their own. This module may import nothing but the
standard library, and raises nothing: where nothing can be read, nothing is known.
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
    """So many processes were killed for lack of memory, as ``where``, a memory cgroup or the
    machine, counted.
    """

    where: str
    kills: int


class OomWatch:
    """Counts the out-of-memory kills since it was made, in the memory cgroup of the process
    ``pid``.

    The nearest group upwards whose count can be read is taken: a group further up counts its other
    children too. In a system without memory cgroups it is the machine's own count.
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
        """The kills so far; None if they cannot be known."""
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
    """Files that may hold the count, the best first, each with a name for its place."""
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
    """The groups of a process as ``/proc/<pid>/cgroup`` has them (cgroups(7)): whether of version
    1, and the path.
    """
    with suppress(OSError, ValueError):
        for line in (proc / str(pid) / "cgroup").read_text(encoding="utf-8").splitlines():
            _, controllers, path = line.split(":", 2)
            if "memory" in controllers.split(","):
                yield True, path
            elif not controllers:
                yield False, path


def _mounts(proc: Path) -> list[tuple[str, Path, bool]]:
    """Where memory cgroups are mounted: the group at the mount's root, the folder, whether of
    version 1, which goes first.

    In a system that has both, the controller is version 1's.
    """
    found = []
    with suppress(OSError, ValueError, IndexError):
        for line in (proc / "self" / "mountinfo").read_text(encoding="utf-8").splitlines():
            before, _, after = line.partition(" - ")
            fields, (kind, _, options) = before.split(), after.split(" ", 2)
            v1 = kind == "cgroup" and "memory" in options.split(",")
            if v1 or kind == "cgroup2":
                found.append((fields[3], Path(fields[4]), v1))
    return sorted(found, key=lambda mount: not mount[2])


def _upwards(group: str, root: str) -> Iterator[str]:
    """The folder of ``group`` below a mount that shows the group ``root``, and those above it up to
    the mount.
    """
    try:
        inside = PurePosixPath(group).relative_to(root)
    except ValueError:
        inside = (
            PurePosixPath()
        )  # seen from elsewhere: all that can be read is the mount's own group
    if ".." not in inside.parts:
        yield from (
            str(folder) for folder in (inside, *inside.parents) if folder != PurePosixPath()
        )
    yield "."
