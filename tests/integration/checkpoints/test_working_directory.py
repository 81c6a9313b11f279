"""Ranks that change their working directory save together all the same."""

from __future__ import annotations

from pathlib import Path

import pytest

from llutil.launcher.launch_agent import LaunchConfig, launch_agent
from tests.integration.checkpoints.directory_functions import save_elsewhere

pytestmark = pytest.mark.launch


@pytest.mark.parametrize("method", ["spawn", "fork"])
def test_ranks_that_go_to_directories_of_their_own_save_below_that_of_their_launch(
    temporary: Path, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(temporary)
    monkeypatch.setenv("LLUTIL_CHECKPOINT_TIMEOUT", "10")
    config = LaunchConfig(1, 1, 2, run_id="here", start_method=method, max_restarts=0)
    for before, step in ((None, 1), (1, 2)):
        results = launch_agent(config, save_elsewhere, [str(temporary)])
        assert [found for found, _ in results.values()] == [before] * 2
        (folder,) = {Path(path) for _, path in results.values()}
        assert folder.parent == temporary / "checkpoints" / "here"
        assert sorted(path.name for path in folder.iterdir()) == ["COMMITTED", "rank-0", "rank-1"]
        assert folder.name.startswith(f"step-{step}-")
