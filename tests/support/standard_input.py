"""Another standard input for the test run itself."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["standard_input"]


@contextmanager
def standard_input(text: bytes) -> Iterator[None]:
    """A pipe that ends after ``text``, in the place of this process's standard input."""
    kept = os.dup(0)
    read, write = os.pipe()
    os.write(write, text)
    os.close(write)
    os.dup2(read, 0)
    os.close(read)
    try:
        yield
    finally:
        os.dup2(kept, 0)
        os.close(kept)
