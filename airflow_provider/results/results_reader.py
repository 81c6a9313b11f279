"""The file through which an agent hands its task what the ranks returned, where that is to be
stored.

It has no name: whichever process is killed, nothing of it stays. The agent inherits the descriptor
and writes; the task reads when the agent has ended. This module imports nothing but the standard
library, ``llutil.errors`` and ``llutil.task_link.messages``.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

from llutil.errors import InfrastructureError
from llutil.task_link.messages import ResultInFile

__all__ = ["ResultsReader"]

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
