"""``RecordTree``: the records of a ``MemoryStore`` by their paths, in a tree of folders.

A path is a namespace's prefix and a key, so it begins with ``/``. Reading a folder costs what is
directly in it. Deleting a folder costs what is in and below it. This module may import
``llutil.ledgers.protocol``, and nothing else.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

from llutil.ledgers.protocol import Record

__all__ = ["RecordTree", "folder_of"]


def folder_of(path: str) -> str:
    """The folder that a record or a folder is directly in."""
    return path[: path.rindex("/", 0, -1) + 1]


class RecordTree:
    """Records by path. The records of a folder are in the order in which they were added."""

    def __init__(self) -> None:
        self._records: dict[str, dict[str, Record]] = {}  # by folder, then by path
        self._folders: dict[str, set[str]] = {}  # the folders with records below, by their folder

    def get(self, path: str) -> Record | None:
        """The record at ``path``, if there is one."""
        return self._records.get(folder_of(path), {}).get(path)

    def directly_in(self, folder: str) -> Collection[Record]:
        """The records in a folder, without those in folders below it."""
        return self._records.get(folder, {}).values()

    def below(self, folder: str) -> Iterator[str]:
        """The paths of all records in and below a folder. Nothing may change in the meantime."""
        folders = [folder]
        while folders:
            one = folders.pop()
            yield from self._records.get(one, ())
            folders.extend(self._folders.get(one, ()))

    def add(self, path: str, record: Record) -> None:
        """Put a record where there is none, as the last of its folder."""
        folder = folder_of(path)
        self._records.setdefault(folder, {})[path] = record
        while folder != "/":
            above = self._folders.setdefault(folder_of(folder), set())
            if folder in above:
                break
            above.add(folder)
            folder = folder_of(folder)

    def remove(self, path: str) -> Record:
        """Remove the record at ``path``, and the folders that have no records left."""
        folder = folder_of(path)
        record = self._records[folder].pop(path)
        if not self._records[folder]:
            del self._records[folder]
        while folder != "/" and folder not in self._records and folder not in self._folders:
            above = folder_of(folder)
            self._folders[above].remove(folder)
            if not self._folders[above]:
                del self._folders[above]
            folder = above
        return record
