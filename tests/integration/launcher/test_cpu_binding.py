"""Each rank runs on the CPUs that torch names for its GPU. torch is a stand-in here: the real one
would need GPUs.
"""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path

import pytest

from llutil.errors import ConfigError
from llutil.launcher import NumaOptions
from tests.support.launches import launch

pytestmark = pytest.mark.launch

BINDING = """
from dataclasses import dataclass

AffinityMode = str

@dataclass
class NumaOptions:
    affinity_mode: str

def _get_logical_cpus_to_bind_to(*, gpu_index, numa_options):
    if numa_options.affinity_mode == "socket":
        raise RuntimeError("there are no GPUs")
    return {CPUS[gpu_index]}
"""
COMMAND = 'test "$(cut -f 2 < <(grep Cpus_allowed_list /proc/self/status))" = $LLUTIL_CPUS'


@pytest.fixture
def cpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The CPUs of two GPUs, of which a stand-in of torch tells."""
    ours = sorted(os.sched_getaffinity(0))
    cpus = [ours[-1], ours[0]]
    folder = tmp_path / "torch" / "numa"
    folder.mkdir(parents=True)
    (folder.parent / "__init__.py").write_text("")
    (folder / "__init__.py").write_text("")
    (folder / "binding.py").write_text(f"CPUS = {cpus}\n{BINDING}")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return cpus


def allowed() -> set[int]:
    return os.sched_getaffinity(0)


@pytest.mark.parametrize("method", ["spawn", "fork"])
def test_ranks_run_on_the_cpus_near_their_gpus(method: str, cpus: list[int]) -> None:
    found = launch(allowed, nproc=2, start_method=method, numa_options="node")
    assert found == {0: {cpus[0]}, 1: {cpus[1]}}
    assert os.sched_getaffinity(0) >= set(cpus), "the caller keeps its own"


@pytest.mark.usefixtures("cpus")
def test_a_command_runs_there_too() -> None:
    launch("bash", "-c", COMMAND, nproc=2, numa_options="node")


@pytest.mark.usefixtures("cpus")
def test_where_the_cpus_are_not_found_the_launch_fails_or_goes_on_unbound(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with pytest.raises(ConfigError, match=r"near the GPU of each rank, but .*there are no GPUs"):
        launch(allowed, numa_options="socket")
    with caplog.at_level(logging.WARNING, "llutil"):
        found = launch(allowed, start_method="fork", numa_options=NumaOptions("socket", True))
    assert found == {0: os.sched_getaffinity(0)}
    assert "there are no GPUs; ranks are not bound" in caplog.text
    assert "torch" in sys.modules
