"""The parts of ``make gpu``: each is a function that says what it has seen, or raises.

    python -m tests.gpu.parts NAME DEVICE

runs one in a process of its own and prints what it says. That process is the agent of its jobs,
which must not touch CUDA; so nothing here does, but in ranks and in short-lived processes.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]  # psutil ships no types

from llutil.failure import FailureClass
from llutil.launcher.asked_of_torch import answer, asked_of_torch
from llutil.launcher.launch_agent import LaunchConfig, launch_agent
from tests.gpu import rank_functions
from tests.gpu.device_use import DeviceUse, is_touched, use_of
from tests.gpu.operator_agent import watched_operator_agent

__all__ = ["PARTS"]

_WITHIN = 40.0  # seconds for ranks to be at work
_NO_MIG = "MIG-00000000-0000-0000-0000-000000000000"


def _config(nproc: int | str, **fields: Any) -> LaunchConfig:
    values = {"max_restarts": 0, "start_method": "forkserver", "shutdown_timeout": 5}
    return LaunchConfig(1, 1, nproc, **(values | fields))


def _count(device: str) -> int | str:
    return 1 if device == "cpu" else "gpu"


def nccl(device: str) -> str:
    """One rank, a collective with NCCL; the rank is counted by ``nproc_per_node="gpu"``."""
    backend = "gloo" if device == "cpu" else "nccl"
    with _visible("0"):
        results = launch_agent(_config(_count(device)), rank_functions.add_ranks, [backend, device])
    assert results == {0: 1.0}, results
    return f"a collective of one rank with {backend}"


def nccl_twice(device: str) -> str:
    """Two ranks on one GPU: NCCL refuses that, and its refusal arrives as the job's error."""
    assert device != "cpu", "needs a GPU"
    failure = _failure(_config(2), rank_functions.add_ranks, ["nccl", "cuda:0"])
    assert "Duplicate GPU" in str(failure), f"the error does not say that NCCL refused: {failure}"
    return "NCCL refused two ranks on one GPU, and the job's error says so"


def gloo(device: str) -> str:
    """Two ranks on one GPU, a collective with gloo on tensors of the device."""
    where = "cpu" if device == "cpu" else "cuda:0"
    results = launch_agent(_config(2), rank_functions.add_ranks, ["gloo", where])
    assert results == {0: 3.0, 1: 3.0}, results
    return f"two ranks, a collective with gloo on {where}"


def untouched(device: str) -> str:
    """Agent, fork server and guardian never touch CUDA, whatever CUDA_VISIBLE_DEVICES says."""
    imported = _use_of_an_import()
    said = []
    for name, value in _ways_to_show(device).items():
        with _visible(value):
            said.append(f"{name}: {_watched(device, imported, value)}")
    return f"import alone: {imported}; " + "; ".join(said)


def operator_agent(device: str) -> str:
    """The same of the operator's agent, whose fork server is forked from it."""
    imported = _use_of_an_import()
    said = []
    for name, value in _ways_to_show(device).items():
        with _visible(value):
            said.append(f"{name}: {watched_operator_agent(device, imported)}")
    return "; ".join(said)


def memory(device: str) -> str:
    """An allocation that is too large: the failure's class is out of memory."""
    failure = _failure(_config(1), rank_functions.take_too_much, [device])
    found = failure.job_failure.failure_class
    assert found is FailureClass.OUT_OF_MEMORY, f"the class is {found}: {failure}"
    return f"the class is {found.value}"


def checkpoint(device: str) -> str:
    """A training on the device is killed after a checkpoint, and comes to the same weights."""
    weights = []
    for killed_at in (None, 5):
        with tempfile.TemporaryDirectory() as folder:
            config = _config(1, max_restarts=1, run_id="gpu", checkpoint_path=folder)
            results = launch_agent(config, rank_functions.train, [device, 8, killed_at])
            weights.append(results[0])
    assert weights[0] == weights[1], weights
    return "killed at step 5, went on after step 4, and came to the same weights"


PARTS: Mapping[str, Callable[[str], str]] = {
    "nccl": nccl,
    "nccl twice": nccl_twice,
    "gloo": gloo,
    "untouched": untouched,
    "operator": operator_agent,
    "memory": memory,
    "checkpoint": checkpoint,
}


def _failure(config: LaunchConfig, function: Callable[..., Any], args: list[Any]) -> Any:
    """What a job fails by."""
    from llutil.agent.failures.report import WorkersFailed

    try:
        results = launch_agent(config, function, args)
    except WorkersFailed as error:
        return error
    raise AssertionError(f"the job did not fail: {results}")


@contextmanager
def _visible(value: str | None) -> Any:
    """CUDA_VISIBLE_DEVICES for what is launched meanwhile; None leaves it as it is."""
    before = os.environ.get("CUDA_VISIBLE_DEVICES")
    if value is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = value
    try:
        yield
    finally:
        if value is not None:
            del os.environ["CUDA_VISIBLE_DEVICES"]
            if before is not None:
                os.environ["CUDA_VISIBLE_DEVICES"] = before


def _ways_to_show(device: str) -> dict[str, str | None]:
    """CUDA_VISIBLE_DEVICES as it is, as a UUID, and as the name of a MIG instance: a real one if
    there is any, else one that does not exist.
    """
    ways: dict[str, str | None] = {"as it is": None}
    if device != "cpu":
        ways["UUID"] = asked_of_torch("from tests.gpu.parts import tell_uuid; tell_uuid()")
    return ways | {"MIG": _mig_instance() or _NO_MIG}


def tell_uuid() -> None:
    """Answer with the first GPU's name, for the process that asked."""
    import torch

    answer(f"GPU-{torch.cuda.get_device_properties(0).uuid}")


def _mig_instance() -> str | None:
    try:
        listed = subprocess.run(
            ["nvidia-smi", "-L"], capture_output=True, text=True, timeout=20, check=True
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    names = [word.rstrip(")") for word in listed.split() if word.startswith("MIG-")]
    return names[0] if names else None


def _use_of_an_import() -> DeviceUse:
    """What an interpreter shows that has imported torch and done nothing else."""
    code = "import sys, torch, torch.distributed; print(flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        use = use_of(process.pid)
        process.communicate()
    return use


def _watched(device: str, imported: DeviceUse, visible: str | None) -> str:
    """Launch a rank that holds the device, and look at all processes of the job meanwhile."""
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        found: list[dict[str, Any]] = []
        watch = threading.Thread(target=_look, args=(Path(folder), found), daemon=True)
        watch.start()
        stack.callback(watch.join, _WITHIN)
        fields = {} if visible is None else {"virtual_local_rank": True}
        results = launch_agent(_config(1, **fields), rank_functions.hold, [folder, device])
    assert found, "the job's processes were not seen while its rank was at work"
    (rank,) = [row for row in found if row["role"] == "rank"]
    roles = {row["role"] for row in found}
    assert {"agent", "fork server", "guardian"} <= roles, roles
    if device != "cpu" and results[0]["usable"]:
        assert is_touched(rank["use"], imported), f"a rank on the device shows {rank['use']}"
    if visible is not None:
        assert results[0]["visible"] == visible, results
    touched = [
        f"{row['role']} {row['pid']}: {row['use']}"
        for row in found
        if row["role"] != "rank" and is_touched(row["use"], imported)
    ]
    assert not touched, f"CUDA was touched by {'; '.join(touched)}"
    return f"rank shows {rank['use']}, {len(found) - 1} other processes nothing beyond the import"


def _look(folder: Path, found: list[dict[str, Any]]) -> None:
    """Once the rank is at work, what each process of the job shows."""
    ready, end = folder / "ready-0", time.monotonic() + _WITHIN
    while not ready.exists() and time.monotonic() < end:
        time.sleep(0.02)
    if ready.exists():
        rank = int(ready.read_text())
        found += _processes(rank)
        (folder / "seen").touch()


def _processes(rank: int) -> list[dict[str, Any]]:
    own = psutil.Process()
    rows = [{"role": "agent", "pid": own.pid, "use": use_of(own.pid)}]
    for process in own.children(recursive=True):
        command = " ".join(process.cmdline())
        role = "rank" if process.pid == rank else _role(command)
        rows.append({"role": role, "pid": process.pid, "use": use_of(process.pid)})
    return rows


def _role(command: str) -> str:
    if "guardian" in command:
        return "guardian"
    return "fork server" if "forkserver" in command else "other"


if __name__ == "__main__":
    print(PARTS[sys.argv[1]](sys.argv[2]), flush=True)
