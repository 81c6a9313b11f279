"""What Airflow itself says about the provider."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.airflow.settings import environment

pytestmark = pytest.mark.airflow


def test_airflow_lists_the_provider(tmp_path: Path) -> None:
    done = subprocess.run(
        [Path(sys.executable).with_name("airflow"), "providers", "list", "--output", "json"],
        env=environment(tmp_path, {}),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    (found,) = (
        provider
        for provider in json.loads(done.stdout)
        if provider["package_name"] == "airflow-provider-elastic-launch"
    )
    assert found["version"]
    assert "PyTorch" in found["description"]
