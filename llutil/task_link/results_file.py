"""The file through which an agent hands its task what the ranks returned.

It is used where the task stores results. A value of a hundred megabytes as one line of JSON on the
socket would be held many times over, by both processes. Here the bytes that came from the rank are
written as they are, and the socket carries only their place.

The task makes the file, without a name, so that nothing of it stays whichever process is killed.
The agent inherits the descriptor and writes. The task reads when the agent has ended. This module
may import nothing but the standard library, ``llutil.errors`` and ``llutil.task_link.messages``.
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

_CHUNK = 1 << 22


class ResultsReader:
    """An unnamed file in ``folder``, which needs room for all that the ranks of one node return."""

    def __init__(self, folder: Path) -> None:
        self._file = tempfile.TemporaryFile(dir=folder, buffering=0)  # noqa: SIM115 - closed by close

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
        """What an agent inherits."""
        return self._file.fileno()

    def clear(self) -> None:
        """Forget what an earlier launch has left."""
        self._file.truncate(0)

    def pieces(self, filed: ResultInFile) -> Iterator[bytes]:
        """The value's JSON, in pieces of at most 4 MiB.

        :raises InfrastructureError: the file ends before it.
        """
        at, end = filed.offset, filed.offset + filed.size
        while at < end:
            piece = os.pread(self.fd, min(_CHUNK, end - at), at)
            if not piece:
                raise InfrastructureError(
                    f"the agent's file of results ends at {at:,} of {end:,} bytes"
                )
            at += len(piece)
            yield piece


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
                f"a result of {len(content):,} bytes could not be handed to the task: "
                f"{error.strerror}, in the temporary folder of the worker's host; "
                "set TMPDIR to a folder with more room"
            ) from error
        return offset, len(content)
