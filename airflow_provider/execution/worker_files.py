"""The files of a task and its agent on the worker's disk: log files while a job runs, and the log
that the agent writes after its task has gone.

Everything is in one folder in the temporary directory, one for each user, which only that user may
enter. The folder is not removed when it is empty: an agent may still write there after its task has
gone. This module imports nothing but the standard library, ``llutil.errors`` and
``llutil.system``.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import stat
import tempfile
import time
from contextlib import suppress
from itertools import chain, count
from pathlib import Path
from typing import TYPE_CHECKING

from llutil.errors import InfrastructureError
from llutil.system.printable import printable_lines

if TYPE_CHECKING:
    from llutil.launcher.run_id import TaskKey

__all__ = ["OrphanLogFile", "TaskLogFolder", "first_time", "kept_folder", "user_folder"]

_READ_AT_MOST = 256 * 1024
_LOGS = "logs-"
_REMEMBERED = 86400.0
"""How long a text counts as said, in seconds."""
_STALE_AFTER = 3600.0
"""The age from which an empty log folder may be removed, in seconds of the file system's clock."""


def user_folder() -> Path:
    """This user's folder. It is made if it does not exist.

    The temporary directory is open to all users, so a folder or link of that name may belong to
    somebody else. Then it is the first of the names with -1, -2, ... that belongs to this user or
    to nobody. Tasks that begin at the same moment, and later ones, find the same one.

    :raises InfrastructureError: no folder can be made there, or the file system keeps no owners or
        no permissions, as some mounts do: no name would ever do.
    """
    try:
        first = Path(tempfile.gettempdir(), f"elastic-launch-{os.getuid()}")
        others = (first.with_name(f"{first.name}-{number}") for number in count(1))
        return next(filter(_is_private, map(_made, chain([first], others))))
    except OSError as error:
        raise InfrastructureError(
            f"this worker has no directory for temporary files that can be used: {error}; wanted "
            "one that tasks can write to; set TMPDIR"
        ) from error


def _made(folder: Path) -> Path:
    """``folder``, made for this user alone unless there is something of that name."""
    try:
        folder.mkdir(mode=0o700)
    except FileExistsError:
        return folder
    if folder.exists() and not _is_private(folder):
        with suppress(OSError):  # a task that began at the same moment has removed it
            folder.rmdir()
        raise InfrastructureError(
            f"{folder.parent}, this worker's directory for temporary files, gives a new folder "
            "another owner, or lets other users in: wanted one whose file system keeps owners and "
            "permissions; set TMPDIR"
        )
    return folder


def _is_private(folder: Path) -> bool:
    """Whether it is a folder of this user's that nobody else may enter."""
    try:
        found = folder.lstat()
    except OSError:  # removed meanwhile
        return False
    own = stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid()
    return own and not found.st_mode & 0o077


def first_time(text: str) -> bool:
    """Whether ``text`` was not asked about on this host within a day, by this user. An empty file
    in the user's folder remembers it; where it cannot be made, each time is the first.
    """
    try:
        file = user_folder() / f"said-{hashlib.sha256(text.encode()).hexdigest()[:16]}"
        # As the file system's clock has it, which dates the file too.
        now = time.time()  # noqa: TID251
        known = file.exists() and file.stat().st_mtime > now - _REMEMBERED
        if not known:
            file.touch(mode=0o600)
    except (OSError, InfrastructureError):
        return True
    return not known


def kept_folder(key: TaskKey, deployment: str, try_number: int) -> Path:
    """Where a try of the task instance ``key`` keeps values that cannot be handed on. It is made
    when there is one, and nothing of ours removes it. So the name has ``run_after`` too: values of
    a deleted run with the same id are not taken for those of this one.
    """
    slug = key.slug(f"{deployment} {key.run_after}")
    return user_folder() / f"{slug}.try_{try_number}.results"


class OrphanLogFile:
    """The file in which an agent writes its log when its task has gone. The next try shows it.

    :param folder: the folder of the file.
    :param slug: a name for the task instance, the same for all of its tries.
    """

    def __init__(self, folder: Path, slug: str) -> None:
        self.path = folder / f"{slug}.orphan_log"

    def take(self) -> list[str]:
        """Empty the file, and return its lines; only the last 256 KiB of them.

        The file is not removed: the agent of the last try may still append to it.
        """
        try:
            with self.path.open("r+b") as file:
                size = file.seek(0, os.SEEK_END)
                file.seek(max(0, size - _READ_AT_MOST))
                data = file.read()
                file.truncate(0)
        except FileNotFoundError:
            return []
        text = data.decode("utf-8", "replace").replace("\0", "")
        return printable_lines(text) if text else []

    def remove(self) -> None:
        """Remove the file, if there is one."""
        self.path.unlink(missing_ok=True)


class TaskLogFolder:
    """A folder for one job's log files while it runs.

    The constructor also removes the empty ones that killed tasks have left in ``folder``.
    """

    def __init__(self, folder: Path) -> None:
        self.path = Path(tempfile.mkdtemp(prefix=_LOGS, dir=folder))
        self._lock = os.open(self.path, os.O_RDONLY)  # held as long as the task lives
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        self._remove_stale(folder)

    def remove(self) -> None:
        """Remove the folder with everything in it."""
        shutil.rmtree(self.path, ignore_errors=True)
        self.close()

    def keep_if_used(self) -> bool:
        """Remove the folder if all files in it are empty. Returns whether it still exists."""
        if _holds_anything(self.path):
            self.close()
            return True
        self.remove()
        return False

    def close(self) -> None:
        """Unlock the folder, and leave it as it is."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def _remove_stale(self, folder: Path) -> None:
        newest = self.path.stat().st_mtime
        for other in folder.glob(f"{_LOGS}*"):
            with suppress(OSError):  # it is gone, or a task that still runs has locked it
                lock = os.open(other, os.O_RDONLY | os.O_DIRECTORY)
                try:
                    # A new folder may not be locked yet, or an agent may still use it.
                    if newest - os.fstat(lock).st_mtime > _STALE_AFTER:
                        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                        if not _holds_anything(other):
                            shutil.rmtree(other, ignore_errors=True)
                finally:
                    os.close(lock)


def _holds_anything(folder: Path) -> bool:
    return any(file.stat().st_size for file in folder.rglob("*") if file.is_file())
