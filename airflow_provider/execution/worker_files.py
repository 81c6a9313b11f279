"""What a task and its agent put on a worker's disk: log files while a job runs, and the agent's
last words.

Everything lies in one folder a user in the temporary directory, which only that user may enter. It
stays when it is empty: an agent may still have to write there after its task has gone. This module
imports nothing but the standard library.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import stat
import tempfile
from contextlib import suppress
from pathlib import Path

__all__ = ["OrphanLogFile", "TaskLogFolder", "user_folder"]

_READ_AT_MOST = 256 * 1024
_LOGS = "logs-"
_STALE = 3600.0  # seconds by the file system's clock


def user_folder() -> Path:
    """This user's folder, made if need be.

    Somebody else may own one of that name, or a link, in a directory that all may write to. Then a
    new folder is made: safe, but the next try will not find it.
    """
    folder = Path(tempfile.gettempdir(), f"elastic-launch-{os.getuid()}")
    with suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    found = folder.lstat()
    if stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and not found.st_mode & 0o077:
        return folder
    return Path(tempfile.mkdtemp(prefix=f"{folder.name}-"))


class OrphanLogFile:
    """The file that an agent goes on writing its log to when its task has gone, for the next try to
    show.

    :param folder: where it is; :param slug: names the task instance, the same for all of its tries.
    """

    def __init__(self, folder: Path, slug: str) -> None:
        self.path = folder / f"{slug}.orphan_log"

    def take(self) -> list[str]:
        """The lines that are there, the last 256 KiB of them; and forget them.

        The file is emptied, not removed: the agent of the last try may still be writing, and
        appends.
        """
        try:
            with self.path.open("r+b") as file:
                size = file.seek(0, os.SEEK_END)
                file.seek(max(0, size - _READ_AT_MOST))
                data = file.read()
                file.truncate(0)
        except FileNotFoundError:
            return []
        return data.decode("utf-8", "replace").replace("\0", "").splitlines()

    def remove(self) -> None:
        """Remove the file, if there is one."""
        self.path.unlink(missing_ok=True)


class TaskLogFolder:
    """A folder for one job's log files, for the time that it runs.

    Making one also removes those that killed tasks have left in ``folder``, if there is nothing in
    them.
    """

    def __init__(self, folder: Path) -> None:
        self.path = Path(tempfile.mkdtemp(prefix=_LOGS, dir=folder))
        self._lock = os.open(self.path, os.O_RDONLY)  # held as long as the task lives
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        self._sweep(folder)

    def remove(self) -> None:
        """Remove it with all that is in it."""
        shutil.rmtree(self.path, ignore_errors=True)
        self.close()

    def keep_if_used(self) -> bool:
        """Remove it if no file in it holds anything; whether it is still there."""
        if _holds_anything(self.path):
            self.close()
            return True
        self.remove()
        return False

    def close(self) -> None:
        """Let go of it, and leave it as it is."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def _sweep(self, folder: Path) -> None:
        newest = self.path.stat().st_mtime
        for other in folder.glob(f"{_LOGS}*"):
            with suppress(OSError):  # gone, or another task's: locked
                lock = os.open(other, os.O_RDONLY | os.O_DIRECTORY)
                try:
                    # A young one may be between its making and its locking, or still in use by an
                    # agent.
                    if newest - os.fstat(lock).st_mtime > _STALE:
                        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                        if not _holds_anything(other):
                            shutil.rmtree(other, ignore_errors=True)
                finally:
                    os.close(lock)


def _holds_anything(folder: Path) -> bool:
    return any(file.stat().st_size for file in folder.rglob("*") if file.is_file())
