"""A store of checkpoints in a folder: of one host, or of a file system that all hosts share.

A file that is put appears whole, by a rename. A folder that is removed is renamed first. So a
process that dies at any moment leaves nothing that looks whole and is not. This module may import
only the standard library.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import uuid
from collections.abc import Iterator
from pathlib import Path

__all__ = ["LocalStore"]

_REMOVED = ".removed-"


class LocalStore:
    """See ``llutil.checkpoints.store.Store``."""

    poll = (0.001, 0.25)

    def __init__(self, folder: str) -> None:
        self._root = Path(folder).absolute()

    def __repr__(self) -> str:
        return str(self._root)

    def path(self, name: str) -> str:
        """The absolute path."""
        return str(self._root / name)

    def make(self, name: str) -> None:
        """Make the folder, and those above it."""
        (self._root / name).mkdir(parents=True, exist_ok=True)

    def put(self, name: str, content: bytes, *, durable: bool = False) -> None:
        """Write a file that appears whole."""
        path = self._root / name
        part = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
        try:
            with part.open("xb") as file:
                file.write(content)
                if durable:
                    file.flush()
                    os.fsync(file.fileno())
            part.rename(path)
        except BaseException:
            part.unlink(missing_ok=True)
            raise
        if durable:
            _sync(path.parent)

    def get(self, name: str) -> bytes:
        """The content of a file."""
        return (self._root / name).read_bytes()

    def names(self, folder: str) -> list[str]:
        """What lies in the folder."""
        try:
            return [path.name for path in (self._root / folder).iterdir()]
        except FileNotFoundError:
            return []

    def files(self, folder: str) -> dict[str, int]:
        """The files below the folder, with their sizes."""
        root = self._root / folder
        return {path.relative_to(root).as_posix(): size for path, size in _files(root)}

    def sync(self, folder: str) -> None:
        """Wait until the files below the folder are on disk."""
        root = self._root / folder
        folders = {root, *root.parents[: len(Path(folder).parts)]}
        for path, _ in _files(root):
            folders.add(path.parent)
            # Another rank may rename or remove a file of its own meanwhile.
            with contextlib.suppress(FileNotFoundError):
                _sync(path)
        for each in folders:
            _sync(each)

    def remove(self, folder: str) -> None:
        """Remove the folder, which is renamed first."""
        path = self._root / folder
        away = path.with_name(f"{_REMOVED}{path.name}-{uuid.uuid4().hex}")
        with contextlib.suppress(FileNotFoundError):
            path.rename(away)
        for left in path.parent.glob(f"{_REMOVED}*"):  # also what a process left that died here
            shutil.rmtree(left, ignore_errors=True)


def _files(root: Path) -> Iterator[tuple[Path, int]]:
    """Each regular file below ``root``, and its size. What vanishes meanwhile is left out.

    :raises OSError: a folder or a file cannot be looked at; ``os.walk`` leaves out some of these.
    """
    try:
        with os.scandir(root) as found:
            entries = list(found)
    except (FileNotFoundError, NotADirectoryError):
        return
    for entry in entries:
        try:
            status = entry.stat(follow_symlinks=False)
        except FileNotFoundError:
            continue
        if stat.S_ISDIR(status.st_mode):
            yield from _files(Path(entry.path))
        elif stat.S_ISREG(status.st_mode):
            yield Path(entry.path), status.st_size


def _sync(path: Path) -> None:
    """Wait until the file or folder ``path`` is on disk."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
