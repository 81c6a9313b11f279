"""What an agent process is given by its task, for tests that are no agent process."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

__all__ = ["streams"]


@contextmanager
def streams() -> Iterator[tuple[int, int]]:
    """Pipes in the place of standard output and error, as an agent has them; their read ends.

    No fixture: pytest would put its own in their place before the test begins.
    """
    with ExitStack() as stack:
        readers = []
        for stream in (1, 2):
            kept = os.dup(stream)
            read, write = os.pipe()
            stack.callback(os.close, read)
            stack.callback(os.close, kept)
            stack.callback(os.dup2, kept, stream)
            os.dup2(write, stream)
            os.close(write)
            readers.append(read)
        yield readers[0], readers[1]
