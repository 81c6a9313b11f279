"""The file through which an agent gives its task what the ranks returned.

It is used if the task stores results. On the socket, a value of a hundred megabytes would be one
line of JSON, of which both processes would hold several copies. Here the bytes that came from the
rank are written as they are, and the socket carries only their place in the file.

The task makes the file without a name, so nothing of it stays, whichever process is killed. The
agent inherits the descriptor and writes. The task reads when the agent has ended. This module may
import only the standard library, ``llutil.errors`` and ``llutil.task_link.messages``.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

from llutil.errors import InfrastructureError
from llutil.task_link.messages import ResultInFile

__all__ = ["ResultsReader", "ResultsWriter"]

# Bytes of one piece at most: 4 MiB.
_CHUNK = 1 << 22


class ResultsReader:
    """The task's side: an unnamed file in ``folder``.

    The folder needs room for all that the ranks of one node return.
    """

    def __init__(self, folder: Path) -> None:
        self._file = tempfile.TemporaryFile(dir=folder, buffering=0)  # noqa: SIM115 - see close

    def __enter__(self) -> ResultsReader:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()

    @property
    def fd(self) -> int:
        """The descriptor that the agent inherits."""
        return self._file.fileno()

    def clear(self) -> None:
        """Remove what an earlier launch wrote."""
        self._file.truncate(0)

    def pieces(self, result: ResultInFile) -> Iterator[bytes]:
        """The content of ``result``, in pieces of at most 4 MiB.

        :raises InfrastructureError: the file ends before the result does.
        """
        position, end = result.offset, result.offset + result.size
        while position < end:
            piece = os.pread(self.fd, min(_CHUNK, end - position), position)
            if not piece:
                raise InfrastructureError(
                    f"the agent's file of results ends at {position:,} of {end:,} bytes"
                )
            position += len(piece)
            yield piece


class ResultsWriter:
    """The agent's side: writes to the descriptor ``fd``, from the start of its file."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self._end = 0

    def add(self, content: bytes | bytearray) -> tuple[int, int]:
        """Append ``content``; returns its offset and its size, in bytes.

        :raises InfrastructureError: the disk is full or cannot be written to.
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
                f"a result of {len(content):,} bytes could not be given to the task: "
                f"{error.strerror}, in the temporary folder of the worker's machine; "
                "set TMPDIR to a folder with more room"
            ) from error
        return offset, len(content)
