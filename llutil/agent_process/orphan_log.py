"""The file that gets the agent's messages and output once its task is gone; the next try shows it.

The agent's standard output and error are pipes to the task. The agent also holds copies of their
read ends. So printing never fails with a broken pipe, and what the task had not read when it died
can still be read from the pipes.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress

from llutil.system.printable import printable_lines
from llutil.task_link import messages

__all__ = ["OrphanLog"]

_CHUNK = 1 << 16


class OrphanLog:
    """The file, which ``begin`` opens. ``readers`` are copies of the pipes' read ends."""

    def __init__(self, readers: Sequence[int]) -> None:
        self.readers = tuple(readers)
        self._fd: int | None = None

    def begin(self, path: str) -> None:
        """Write to ``path`` what the pipes still hold, and redirect standard output and error to
        it.
        """
        if self._fd is not None:
            return
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
        try:
            self._fd = os.open(path, flags, 0o600)
        except OSError:
            # There is nobody to tell, and the job must still be ended.
            self._fd = os.open(os.devnull, flags)
        for reader in self.readers:
            os.set_blocking(reader, False)
            with suppress(BlockingIOError):
                while data := os.read(reader, _CHUNK):
                    self._write(data)
        for stream in (1, 2):
            os.dup2(self._fd, stream)

    def take(self, message: messages.Message) -> None:
        """Write ``message``, if a later reader needs it."""
        match message:
            case messages.OutputLines(rank=rank, text=text, prefix=prefix):
                self._write_lines(prefix or f"[rank {rank}] ", text)
            case messages.LogRecord(level=level, text=text):
                self._write_lines(f"{level} ", text)
            case messages.JobFailed(report=report):
                self._write_lines("the job ended: ", report)
            case messages.JobSucceeded(ranks=ranks):
                self._write_lines("the job succeeded after its task was gone; ranks ", str(ranks))
            case _:
                pass

    def _write_lines(self, prefix: str, text: str) -> None:
        """Write ``text``, each of its lines behind the prefix: a rank may have a word in it."""
        lines = "".join(f"{prefix}{line}\n" for line in printable_lines(text))
        self._write(lines.encode(errors="replace"))

    def _write(self, data: bytes) -> None:
        assert self._fd is not None
        with suppress(OSError):  # a full disk: there is nobody to tell
            os.write(self._fd, data)
