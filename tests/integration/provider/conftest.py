"""What the provider's integration tests share."""

from __future__ import annotations

import subprocess
from types import SimpleNamespace

import pytest

from airflow_provider.agent_client import process
from tests.support.warm_python import WarmPython


@pytest.fixture
def warm_agents(python_with_torch: WarmPython, monkeypatch: pytest.MonkeyPatch) -> None:
    """Agents of tasks have torch imported when they begin."""
    popen = {"Popen": python_with_torch.popen, "DEVNULL": subprocess.DEVNULL}
    monkeypatch.setattr(process, "subprocess", SimpleNamespace(**popen))
