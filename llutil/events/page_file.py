"""The file behind the event page: made, mapped, checked, and removed when its creator is gone.

The first 64 bytes say what the file is and who made it. Their layout is the same in every version,
so that a newer llutil can remove the pages of an older one::

    0  magic "LLUTILEV"       16  creator's pid                             32  its pid namespace
    8  version   12  size     24  its start time, as in /proc/<pid>/stat    40  its boot id
                                                                            56  free

Older versions left the boot id 0.

``llutil.events.events`` says what lies after them. This module may import only the standard library
and ``llutil.errors``. It takes no lock, so no dead process can hold one.
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

__all__ = ["HEADER", "Page", "remove_stale", "start_time"]

HEADER = 64
"""The size of the header at the start of a page, in bytes."""
_MAGIC = b"LLUTILEV"
_HEADER_FIELDS = struct.Struct("=8sIIQQQ16s")
_NO_BOOT = bytes(16)
_NAME_PREFIX = "llutil-events-"


class Page:
    """A shared mapping and the path of its file; ``path`` is None for a private page.

    Make one with ``create``, ``attach`` or ``private``. A fork shares the mapping. Only the process
    that created the file removes it: by ``close``, when the object is dropped, or when it exits.
    """

    def __init__(self, mapping: mmap.mmap, path: str | None, *, owned: bool) -> None:
        self.mapping = mapping
        self.path = path
        self._remove = (
            weakref.finalize(self, _unlink_as, os.getpid(), path) if owned and path else None
        )

    @classmethod
    def create(cls, version: int, size: int, folder: str | Path | None = None) -> Page:
        """A new page of ``size`` bytes. Only this user can read it; all after its header is zero.

        :raises InfrastructureError: no folder has room or allows it; the text says why for each.
        """
        refusals = []
        for candidate in _folders(folder):
            try:
                return cls._create_in(candidate, version, size)
            except OSError as error:
                refusals.append(f"{candidate} ({error.strerror})")
        raise InfrastructureError(f"cannot make an event page in {', nor in '.join(refusals)}")

    @classmethod
    def _create_in(cls, folder: Path, version: int, size: int) -> Page:
        pid = os.getpid()
        creator = (pid, start_time(pid) or 0, _pid_namespace(), _boot_id())
        fields = (_MAGIC, version, size, *creator)
        fd, path = tempfile.mkstemp(prefix=_NAME_PREFIX, dir=folder)
        try:
            os.pwrite(fd, _HEADER_FIELDS.pack(*fields), 0)
            # Without reserved room, a full /dev/shm would kill a writer with SIGBUS later on.
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

        :raises InfrastructureError: the file does not exist, or was cut short.
        :raises ConfigError: the file cannot be opened, is not a page, or is of another version.
        """
        try:
            fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        except FileNotFoundError as error:
            raise InfrastructureError(
                f"no event page at {path!r}: the process that made it has ended, or something "
                "removed it (systemd's RemoveIPC does so at logout)"
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
        """A page without a file, for this process and its forks."""
        return cls(mmap.mmap(-1, size), None, owned=False)

    def close(self) -> None:
        """Release the mapping; the creator also removes the file. It may be called again.

        The memory stays mapped while a view of it is in use, as by a thread that waits.
        """
        if self._remove is not None:
            self._remove()
        with contextlib.suppress(BufferError):  # a view is in use: the last view unmaps the memory
            self.mapping.close()


def remove_stale(folder: str | Path | None = None) -> list[str]:
    """Remove the pages whose creators are gone, and return their paths.

    Files that cannot be judged stay: those that are not pages, those of other users, and those
    whose creator is in another pid namespace (a container that shares this host's /dev/shm), or
    on another host, which shares the folder, or was before this host's last boot.
    """
    removed = []
    for candidate in _folders(folder):
        names: list[str] = []
        with contextlib.suppress(OSError):
            names = os.listdir(candidate)  # noqa: PTH208 - far quicker, and each launch does it
        found = [name for name in names if name.startswith(_NAME_PREFIX)]
        for path in (candidate / n for n in sorted(found)):
            # The file may be another user's, or another process has just removed it.
            with contextlib.suppress(OSError):
                if _is_stale(path):
                    path.unlink()
                    removed.append(str(path))
    return removed


def _folders(folder: str | Path | None) -> Iterator[Path]:
    """The folders that a page may lie in, the best first: in memory, then on disk."""
    if folder is not None:
        yield Path(folder)
        return
    memory = Path("/dev/shm")  # noqa: S108 - mkstemp makes the file: exclusive, mode 0600
    if memory.is_dir():
        yield memory
    yield Path(tempfile.gettempdir())


def _check(fd: int, path: str, version: int, size: int) -> None:
    """Check that ``fd`` is a page of this version and size; raises as ``Page.attach`` says."""
    status = os.fstat(fd)
    head = os.pread(fd, _HEADER_FIELDS.size, 0) if stat.S_ISREG(status.st_mode) else b""
    if not head.startswith(_MAGIC):
        raise ConfigError(f"{path!r} is not an event page of llutil: it begins with {head[:8]!r}")
    if len(head) == _HEADER_FIELDS.size:
        found = _HEADER_FIELDS.unpack(head)[1]
        if found != version:
            raise ConfigError(
                f"the event page {path!r} is of version {found}, this llutil needs version "
                f"{version}: install the same airflow-provider-elastic-launch for agent and workers"
            )
    if status.st_size != size:
        raise InfrastructureError(
            f"the event page {path!r} has {status.st_size} bytes of {size}: something cut it short"
        )


def _is_stale(path: Path) -> bool:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        head = b""
        if stat.S_ISREG(os.fstat(fd).st_mode):
            head = os.pread(fd, _HEADER_FIELDS.size, 0)
    finally:
        os.close(fd)
    if len(head) < _HEADER_FIELDS.size or not head.startswith(_MAGIC):
        return False  # not a page, or another process is making it at this moment
    _, _, _, pid, started, namespace, boot = _HEADER_FIELDS.unpack(head)
    # The first pid namespace of a boot has the same number on every host.
    if namespace != _pid_namespace() or boot not in {_NO_BOOT, _boot_id()}:
        return False
    return bool(started != start_time(pid))


def start_time(pid: int) -> int | None:
    """When the process ``pid`` started, in the kernel's ticks since boot.

    None if it has ended, also while it is a zombie.
    """
    try:
        text = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The name before the last bracket may itself hold spaces and brackets.
    state, *fields = text.rpartition(")")[2].split()
    return None if state in "ZX" else int(fields[18])


def _pid_namespace() -> int:
    """The number of the namespace in which this process's pids are valid."""
    return Path("/proc/self/ns/pid").stat().st_ino


def _boot_id() -> bytes:
    """The id of this boot of this host; zeros if it is not shown."""
    try:
        text = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return bytes.fromhex(text.replace("-", ""))
    except (FileNotFoundError, PermissionError):
        return _NO_BOOT


def _unlink_as(pid: int, path: str) -> None:
    if os.getpid() == pid:  # a forked child drops its copy without removing the file
        Path(path).unlink(missing_ok=True)
