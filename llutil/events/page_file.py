"""The file behind the event page: made, mapped, checked, and removed when its creator is gone.

The first 64 bytes say what the file is and who made it; they keep their place in every version, so
that a newer llutil can clear up after an older one::

    0  magic "LLUTILEV"          16  creator's pid                              32  its pid namespace
    8  version   12  size        24  its start time, as in /proc/<pid>/stat     40  free

What lies behind them is ``llutil.events.events``' business. This module may import nothing but the
standard library and ``llutil.errors``; it takes no lock, so that no dead process can hold one.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import stat
import struct
import tempfile
import weakref
from collections.abc import Iterator
from pathlib import Path

from llutil.errors import ConfigError, InfrastructureError

__all__ = ["HEADER", "Page", "remove_stale"]

HEADER = 64
"""Bytes at the start of a page that are not the user's."""
_MAGIC = b"LLUTILEV"
_FIELDS = struct.Struct("=8sIIQQQ")
_PREFIX = "llutil-events-"


class Page:
    """A shared mapping, and the file it came from, if any: ``path`` is None for a private one.

    Make one with ``create``, ``attach`` or ``private``. A fork shares the mapping; only the process
    that created the file removes it, by ``close``, when the object is dropped, or when it exits.
    """

    def __init__(self, mapping: mmap.mmap, path: str | None, *, owned: bool) -> None:
        self.mapping = mapping
        self.path = path
        self._remove = (
            weakref.finalize(self, _unlink_as, os.getpid(), path) if owned and path else None
        )

    @classmethod
    def create(cls, version: int, size: int, folder: str | Path | None = None) -> Page:
        """A new page of ``size`` bytes, zero but for its header, readable by this user alone.

        :raises InfrastructureError: no folder takes it; the text says why, folder by folder.
        """
        refusals = []
        for place in _folders(folder):
            try:
                return cls._create_in(place, version, size)
            except OSError as error:
                refusals.append(f"{place} ({error.strerror})")
        raise InfrastructureError(f"cannot make an event page in {', nor in '.join(refusals)}")

    @classmethod
    def _create_in(cls, folder: Path, version: int, size: int) -> Page:
        pid = os.getpid()
        fields = (_MAGIC, version, size, pid, _started(pid) or 0, _pid_namespace())
        fd, path = tempfile.mkstemp(prefix=_PREFIX, dir=folder)
        try:
            os.pwrite(fd, _FIELDS.pack(*fields), 0)
            # Without room set aside, a full /dev/shm would kill a writer with SIGBUS later on.
            os.posix_fallocate(fd, 0, size)
            mapping = mmap.mmap(fd, size)
        except BaseException:
            Path(path).unlink(missing_ok=True)
            raise
        finally:
            os.close(fd)
        return cls(mapping, path, owned=True)

    @classmethod
    def attach(cls, path: str, version: int, size: int) -> Page:
        """The page at ``path``.

        :raises InfrastructureError: there is no such file, or it is cut short.
        :raises ConfigError: it cannot be opened, is something else, or is of another version.
        """
        try:
            fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        except FileNotFoundError as error:
            raise InfrastructureError(
                f"no event page at {path!r}: the process that made it has ended, or something cleared "
                "its folder (systemd's RemoveIPC does so at logout)"
            ) from error
        except OSError as error:
            raise ConfigError(
                f"{path!r} cannot be opened as an event page: {error.strerror}"
            ) from error
        try:
            _check(fd, path, version, size)
            return cls(mmap.mmap(fd, size), path, owned=False)
        finally:
            os.close(fd)

    @classmethod
    def private(cls, size: int) -> Page:
        """A page without a file, for this process and those it forks."""
        return cls(mmap.mmap(-1, size), None, owned=False)

    def close(self) -> None:
        """Let go of the mapping, and remove the file if this process created it. May be called
        again.

        While a view of the mapping is in use, as by a thread that waits, the memory stays mapped.
        """
        if self._remove is not None:
            self._remove()
        with contextlib.suppress(BufferError):  # a view is in use: the last one to go unmaps
            self.mapping.close()


def remove_stale(folder: str | Path | None = None) -> list[str]:
    """Remove the pages whose creators are gone, and return their paths.

    Left alone is what cannot be judged: files that are no pages, that belong to other users, or
    whose creator lives in another pid namespace (a container that shares this host's /dev/shm).
    """
    removed = []
    for place in _folders(folder):
        for path in sorted(place.glob(f"{_PREFIX}*")):
            with contextlib.suppress(OSError):  # another user's, or another sweeper was faster
                if _is_stale(path):
                    path.unlink()
                    removed.append(str(path))
    return removed


def _folders(folder: str | Path | None) -> Iterator[Path]:
    """Where a page may lie, best first: memory, else the disk."""
    if folder is not None:
        yield Path(folder)
        return
    memory = Path("/dev/shm")  # noqa: S108 - mkstemp makes the file: exclusive, mode 0600
    if memory.is_dir():
        yield memory
    yield Path(tempfile.gettempdir())


def _check(fd: int, path: str, version: int, size: int) -> None:
    """Raise what ``Page.attach`` promises unless ``fd`` is a page of this version and size."""
    status = os.fstat(fd)
    head = os.pread(fd, _FIELDS.size, 0) if stat.S_ISREG(status.st_mode) else b""
    if not head.startswith(_MAGIC):
        raise ConfigError(f"{path!r} is not an event page of llutil: it begins with {head[:8]!r}")
    if len(head) == _FIELDS.size:
        found = _FIELDS.unpack(head)[1]
        if found != version:
            raise ConfigError(
                f"the event page {path!r} is of version {found}, this llutil speaks {version}: "
                "install the same airflow-provider-elastic-launch for agent and workers"
            )
    if status.st_size != size:
        raise InfrastructureError(
            f"the event page {path!r} has {status.st_size} bytes of {size}: something cut it"
        )


def _is_stale(path: Path) -> bool:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        head = os.pread(fd, _FIELDS.size, 0) if stat.S_ISREG(os.fstat(fd).st_mode) else b""
    finally:
        os.close(fd)
    if len(head) < _FIELDS.size or not head.startswith(_MAGIC):
        return False  # not ours, or being made at this moment
    _, _, _, pid, started, namespace = _FIELDS.unpack(head)
    return bool(namespace == _pid_namespace() and started != _started(pid))


def _started(pid: int) -> int | None:
    """When ``pid`` started, in the kernel's ticks since boot; None if it has ended, even if not
    reaped.
    """
    try:
        text = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    state, *fields = text.rpartition(")")[2].split()  # the name before may hold spaces and brackets
    return None if state in "ZX" else int(fields[18])


def _pid_namespace() -> int:
    """A number for the namespace in which this process's pids have their meaning."""
    return Path("/proc/self/ns/pid").stat().st_ino


def _unlink_as(pid: int, path: str) -> None:
    if os.getpid() == pid:  # a forked child drops its copy without removing the file
        Path(path).unlink(missing_ok=True)
