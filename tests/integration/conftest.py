"""After each integration test no process, thread or file of it is left."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.traces import nothing_left


@pytest.fixture(autouse=True)
def temporary(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Path]:
    """A folder for temporary files of this test alone, also of the processes that it starts."""
    tmp_path_factory.getbasetemp()  # pytest's own folder is settled before TMPDIR changes
    folder = Path(
        tempfile.mkdtemp(prefix="test-")
    )  # short: a socket's path may have 107 characters
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    try:
        with nothing_left(folder):
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
