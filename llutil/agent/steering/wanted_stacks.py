"""Whether somebody wants to see what the ranks of this node do at this moment."""

from __future__ import annotations

__all__ = ["WantedStacks"]


class WantedStacks:
    """What gates of one round say about stacks, each once. ``begin`` starts the next round."""

    def __init__(self) -> None:
        self._newest = 0
        self._why = ""

    def begin(self) -> None:
        """A round begins; its gates are numbered from 1 on."""
        self._newest, self._why = 0, ""

    def tell(self, number: int, why: str) -> bool:
        """The newest gate that asked for stacks has this ``number``. Returns whether it is new."""
        if number <= self._newest:
            return False
        self._newest, self._why = number, why or "somebody asked"
        return True

    def take(self) -> str:
        """Why stacks are to be shown now; empty if they are not, or were taken already."""
        why, self._why = self._why, ""
        return why
