"""What tests of launches share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.integration.launcher.launching import hide_torch


@pytest.fixture(scope="session", autouse=True)
def _torch() -> None:
    """Import it before a test looks at threads and descriptors, or at its watch."""
    import torch.distributed.elastic.agent.server.api  # noqa: F401 - imported for its side effects


@pytest.fixture
def no_torch(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """A world in which workers and their fork server find no torch, whose import would take
    seconds.
    """
    folder = tmp_path_factory.mktemp("no-torch")
    hide_torch(folder)
    path = [str(folder), os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, path)))


@pytest.fixture
def folder(tmp_path: Path) -> str:
    """Where workers leave marks."""
    return str(tmp_path)
