"""The file that takes what ranks return where their task wants to store it, in place of the socket.

A value of a hundred megabytes as one line of JSON would be held many times over, by both processes.
Here the bytes that came from the rank are written as they are, and only their place is told. The
file is the task's, has no name, and is gone with the last process that holds it. This module may
import nothing but the standard library and ``llutil.errors``.
"""

from __future__ import annotations

import os

from llutil.errors import InfrastructureError

__all__ = ["ResultsWriter"]


class ResultsWriter:
    """The descriptor ``fd``, written to from its start."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self._end = 0

    def add(self, content: bytes) -> tuple[int, int]:
        """Write ``content`` behind what is there; its offset and size in bytes.

        :raises InfrastructureError: the disk is full, or away.
        """
        offset = self._end
        rest = memoryview(content)
        try:
            while rest:
                written = os.pwrite(self.fd, rest, self._end)
                self._end += written
                rest = rest[written:]
        except OSError as error:
            raise InfrastructureError(
                f"a result of {len(content):,} bytes could not be handed to the task: {error.strerror}, in the "
                "temporary folder of the worker's host; set TMPDIR to a folder with more room"
            ) from error
        return offset, len(content)
