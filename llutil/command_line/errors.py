"""What ends a command: a text for people, and an exit code."""

from __future__ import annotations

__all__ = ["FAILED", "CommandError"]

FAILED = 1
"""The exit code of a command that could not do what it was told. 2 is argparse's: a wrong use."""


class CommandError(Exception):
    """A command ends; its text says why and what to do.

    What to do: what the text says.
    """

    def __init__(self, text: str, code: int = FAILED) -> None:
        super().__init__(text)
        self.code = code
