"""``Value``: one number of a progress bar, which a page has. It may import nothing of the room."""

from __future__ import annotations

from collections.abc import Callable

__all__ = ["Value"]


class Value:
    """The step of a progress bar or its total; see ``Events.progress_bar_iter``."""

    __slots__ = ("_index", "_read", "_write")

    def __init__(
        self, read: Callable[[int], int], write: Callable[[int, int], None], index: int
    ) -> None:
        self._read, self._write = read, write
        self._index = index

    @property
    def value(self) -> int:
        """The number. Assigning to it raises the same errors as ``Slot``'s attributes do."""
        return self._read(self._index)

    @value.setter
    def value(self, value: int) -> None:
        self._write(self._index, value)
