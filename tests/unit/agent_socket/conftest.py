from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def folder() -> Iterator[Path]:
    """A place for a folder of sockets. A socket's path may have 107 characters, which is less than
    pytest's own folders have.
    """
    with tempfile.TemporaryDirectory(prefix="s-") as place:
        yield Path(place, "sockets")
