"""``Folder``: the folder of a checkpoint, as a rank gets it, and what still goes on behind it.

This module may import only the standard library.
"""

from __future__ import annotations

from typing import Any, Protocol

__all__ = ["Folder", "Future"]


class Future(Protocol):
    """What somebody else waits for."""

    def result(self) -> Any:
        """What came of it; it waits for that."""


class Folder(str):
    """The folder of a checkpoint, as a path or a URI."""

    __slots__ = ("futures",)

    def __new__(cls, path: str) -> Folder:
        """The folder at ``path``."""
        self = super().__new__(cls, path)
        self.futures = []
        return self

    futures: list[Future]

    def after(self, future: Any) -> None:
        """Let the checkpoint count only after ``future``, which the context does not wait for.

        It is what torch's ``async_save`` returns, or anything that has ``result()``.
        """
        self.futures.append(getattr(future, "upload_completion", future))
