"""Where the agent's words go once the Airflow task is gone: a file, which the next try shows.

The agent holds copies of the read ends of the pipes that its own standard streams lead to. So a
print never meets a broken pipe, and what was printed but not read when the task died is still in
them.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress

from llutil.task_link import messages

__all__ = ["OrphanLog"]

_CHUNK = 1 << 16


class OrphanLog:
    """The file ``path``, opened when it is first needed. ``readers`` are the copies of the pipes'
    read ends.
    """

    def __init__(self, readers: Sequence[int]) -> None:
        self.readers = tuple(readers)
        self._fd: int | None = None

    def begin(self, path: str) -> None:
        """Send standard output and error to ``path`` from now on, after what their pipes still
        hold.
        """
        if self._fd is not None:
            return
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
        try:
            self._fd = os.open(path, flags, 0o600)
        except OSError:
            self._fd = os.open(
                os.devnull, flags
            )  # nobody is left to tell; the job must still be ended
        for reader in self.readers:
            os.set_blocking(reader, False)
            with suppress(BlockingIOError):
                while data := os.read(reader, _CHUNK):
                    self._write(data)
        for stream in (1, 2):
            os.dup2(self._fd, stream)

    def take(self, message: messages.Message) -> None:
        """Write what ``message`` says, if it says something that a later reader needs."""
        match message:
            case messages.OutputLine(rank=rank, text=text):
                self._write(f"[rank {rank}] {text}\n".encode(errors="replace"))
            case messages.LogRecord(level=level, text=text):
                self._write(f"{level} {text}\n".encode(errors="replace"))
            case messages.JobFailed(report=report):
                self._write(f"the job ended: {report}\n".encode(errors="replace"))
            case messages.JobSucceeded(ranks=ranks):
                self._write(f"the job succeeded after its task was gone; ranks {ranks}\n".encode())
            case _:
                pass

    def _write(self, data: bytes) -> None:
        assert self._fd is not None
        with suppress(OSError):  # a full disk: nobody is left to tell
            os.write(self._fd, data)
