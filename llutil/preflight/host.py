"""What a host has for a job: shared memory, limits, free space, versions. Each check is one value.

``read`` functions look at this machine, the others decide from what they were given. This module
may import the standard library and ``llutil.events.page_file``'s folder.
"""

from __future__ import annotations

import os
import platform
import resource
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

__all__ = [
    "Check",
    "Grade",
    "check_files",
    "check_folder",
    "check_processes",
    "check_shared_memory",
    "check_torch",
    "installed",
    "read_file_limit",
    "read_process_limits",
    "read_shared_memory",
]

_MIB = 1 << 20
_GIB = 1 << 30
# Bytes of /dev/shm below which batches of DataLoader's workers may not fit: docker's default is 64
# MiB. And below which not even the event page does.
_SHARED_ENOUGH, _SHARED_LEAST = 512 * _MIB, _MIB
# Bytes of free space below which log files and checkpoints are in danger.
_FREE_ENOUGH, _FREE_LEAST = _GIB, 16 * _MIB
# Descriptors that an agent needs for itself and for each rank, at the least, and what is enough for
# what the user's code opens in the same limit.
_FILES_OWN, _FILES_PER_RANK, _FILES_ENOUGH = 64, 12, 1024
# Processes and threads of a rank: torch's and the BLAS library's, DataLoader's workers.
_TASKS_PER_RANK, _TASKS_LEAST = 64, 4
_OLDEST_TORCH = (2, 13)
_INFINITE = resource.RLIM_INFINITY


class Grade(StrEnum):
    """How bad a finding is."""

    OK = "ok"
    WARNING = "warning"
    """It can end a run, or prevent it from starting."""
    ERROR = "error"
    """No run can succeed."""


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at: its name, and what was found and what to do, in one line."""

    name: str
    grade: Grade
    text: str


def read_shared_memory(folder: str = "/dev/shm") -> tuple[int, int] | None:  # noqa: S108
    """The size of the shared memory's file system and what is free of it, in bytes; None if there
    is none.
    """
    with suppress(OSError):
        found = os.statvfs(folder)
        return found.f_blocks * found.f_frsize, found.f_bavail * found.f_frsize
    return None


def check_shared_memory(found: tuple[int, int] | None) -> Check:
    """``found`` is what ``read_shared_memory`` gives."""
    name = "/dev/shm"  # noqa: S108 - a name
    if found is None:
        text = "is missing: event pages go to the folder for temporary files; mount a tmpfs there"
        return Check(name, Grade.WARNING, text)
    size, free = found
    told = f"{_bytes(free)} of {_bytes(size)} are free"
    if free < _SHARED_LEAST:
        return Check(name, Grade.ERROR, f"{told}, and a job needs 1 MiB; remove what fills it")
    if free < _SHARED_ENOUGH:
        text = (
            f"{told}: batches of a DataLoader's workers go through it, and without room a rank "
            "ends with a bus error; docker: --shm-size 8g, Kubernetes: an emptyDir of medium Memory"
        )
        return Check(name, Grade.WARNING, text)
    return Check(name, Grade.OK, told)


def read_file_limit() -> int | None:
    """How many files this process may open; None if there is no limit."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return None if soft == _INFINITE else soft


def check_files(limit: int | None, ranks: int) -> Check:
    """Whether an agent with so many ranks may open enough files."""
    name = "open files"
    if limit is None:
        return Check(name, Grade.OK, "no limit")
    least = _FILES_OWN + _FILES_PER_RANK * ranks
    if limit < least:
        text = (
            f"the limit is {limit}, and an agent with {ranks} ranks needs {least}; ulimit -n 65536"
        )
        return Check(name, Grade.ERROR, text)
    if limit < _FILES_ENOUGH:
        text = f"the limit is {limit}, which DataLoader's workers may exceed; ulimit -n 65536"
        return Check(name, Grade.WARNING, text)
    return Check(name, Grade.OK, f"the limit is {limit}")


def read_process_limits() -> dict[str, int]:
    """The limits of processes and threads that hold here, each by its source."""
    found = {}
    soft, _ = resource.getrlimit(resource.RLIMIT_NPROC)
    if soft != _INFINITE and os.geteuid() != 0:  # it does not hold for root
        found["ulimit -u"] = soft
    for path in _cgroup_limits():
        with suppress(OSError, ValueError):
            found[str(path)] = int(path.read_text())
    return found


def check_processes(limits: dict[str, int], ranks: int) -> Check:
    """Whether so many ranks may have enough processes and threads."""
    name = "processes"
    if not limits:
        return Check(name, Grade.OK, "no limit")
    source, limit = min(limits.items(), key=lambda item: item[1])
    told = f"{source} allows {limit} processes and threads"
    if limit < _TASKS_LEAST * (ranks + 1):
        return Check(name, Grade.ERROR, f"{told}, too few for {ranks} ranks; raise it")
    if limit < _TASKS_PER_RANK * ranks:
        text = f"{told}; {ranks} ranks may want {_TASKS_PER_RANK * ranks}: raise it"
        return Check(name, Grade.WARNING, text)
    return Check(name, Grade.OK, told)


def check_folder(name: str, folder: str) -> Check:
    """Whether files can be written in ``folder``, or where it will be made, and have room."""
    try:
        place = Path(folder).absolute()
        while not place.exists() and place != place.parent:
            place = place.parent
        with tempfile.TemporaryFile(dir=place) as file:
            file.write(b"x")
        free = shutil.disk_usage(place).free
    except OSError as error:
        text = f"{folder} cannot be written: {error.strerror}; give another one, or make room"
        return Check(name, Grade.ERROR, text)
    told = f"{folder} has {_bytes(free)} free"
    if free < _FREE_LEAST:
        return Check(name, Grade.ERROR, f"{told}; make room, or give another one")
    if free < _FREE_ENOUGH:
        return Check(name, Grade.WARNING, f"{told}, which long runs may fill; make room")
    return Check(name, Grade.OK, told)


def installed(distribution: str) -> str:
    """The version of an installed distribution, without an import; "" if it is missing."""
    try:
        return version(distribution)
    except PackageNotFoundError:
        return ""


def check_torch(found: str) -> Check:
    """Whether the version ``found`` of torch will do; "" means that there is none."""
    python = platform.python_version()
    if not found:
        text = (
            "is missing in this interpreter; pip install 'airflow-provider-elastic-launch[torch]'"
        )
        return Check("torch", Grade.ERROR, text)
    numbers = tuple(int(part) for part in found.split(".")[:2] if part.isdecimal())
    if numbers < _OLDEST_TORCH:
        text = f"{found} is older than 2.13, which the launcher is made for; upgrade it"
        return Check("torch", Grade.ERROR, text)
    return Check("torch", Grade.OK, f"{found}, with Python {python}")


def _cgroup_limits() -> Iterator[Path]:
    """The files with the limits of this process's control group, in both versions of cgroups."""
    with suppress(OSError):
        for line in Path("/proc/self/cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if controllers == "":
                yield Path(f"/sys/fs/cgroup{path}", "pids.max")
            elif "pids" in controllers.split(","):
                yield Path(f"/sys/fs/cgroup/pids{path}", "pids.max")
    yield Path("/sys/fs/cgroup/pids.max")  # a container's own, seen from inside


def _bytes(count: int) -> str:
    if count >= _GIB:
        return f"{count / _GIB:.1f} GiB"
    return f"{count / _MIB:.0f} MiB"
