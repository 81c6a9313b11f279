"""The part that looks at the agent of an Airflow task, whose fork server is forked from it, while
its rank holds the device.

Nothing here touches CUDA. No Airflow is needed: ``tests.support.fake_task`` stands in for the task.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from llutil.system.job_mark import GUARDIAN_VARIABLE
from llutil.system.process_table import ProcessStat, all_processes
from llutil.task_link.messages import JobSucceeded
from tests.gpu import rank_functions
from tests.gpu.device_use import DeviceUse, is_touched, use_of
from tests.support.fake_task import FakeTask, spec, worker_function

__all__ = ["own_processes", "watched_operator_agent"]

_OWN = {"agent", "fork server", "guardian"}
_WITHIN = 40.0  # seconds for the rank to be at work


def watched_operator_agent(device: str, imported: DeviceUse) -> str:
    """Start such an agent, and look at it and its other processes; says what they show.

    ``imported`` is what a process shows that has only imported torch.
    """
    with tempfile.TemporaryDirectory() as folder:
        hold = worker_function("hold", folder, device, module=rank_functions.__name__)
        with FakeTask(spec(hold, folder, start_method="forkserver")) as task:
            end = time.monotonic() + _WITHIN
            ready = Path(folder, "ready-0")
            while not ready.exists():
                assert not task.closed, task.story()
                assert time.monotonic() < end, f"no rank is at work: {task.story()}"
                task.step()
            rank = int(ready.read_text())
            uses = {rank: use_of(rank)}
            own = own_processes(task.process.pid, [rank])
            uses |= {pid: use_of(pid) for pid in own}
            Path(folder, "seen").touch()
            assert isinstance(task.verdict(), JobSucceeded), task.story()
            usable = task.results()[0]["usable"]
    assert set(own.values()) >= _OWN, own
    if device != "cpu" and usable:
        assert is_touched(uses[rank], imported), f"a rank on the device shows {uses[rank]}"
    touched = [
        f"{name} {pid}: {uses[pid]}" for pid, name in own.items() if is_touched(uses[pid], imported)
    ]
    assert not touched, f"CUDA was touched by {'; '.join(touched)}"
    return f"rank shows {uses[rank]}, {', '.join(sorted(own.values()))} nothing beyond the import"


def own_processes(agent: int, ranks: Iterable[int]) -> dict[int, str]:
    """The processes of a job that are no ranks, by number: what each of them is.

    ``agent`` is the agent, and ``ranks`` are its ranks. What descends from a rank is user code.
    """
    table = all_processes()
    ranks = set(ranks)
    above = {pid for rank in ranks for pid in _ancestors(rank, table)}
    own = {}
    for pid, stat in table.items():
        line = [pid, *_ancestors(pid, table)]
        if not stat.lives or agent not in line or ranks.intersection(line):
            continue
        if pid == agent:
            own[pid] = "agent"
        elif _is_guardian(pid):
            own[pid] = "guardian"
        else:
            own[pid] = "fork server" if pid in above else "other"
    return own


def _ancestors(pid: int, table: dict[int, ProcessStat]) -> list[int]:
    found: list[int] = []
    while (stat := table.get(pid)) is not None:
        pid = stat.parent
        found.append(pid)
    return found


def _is_guardian(pid: int) -> bool:
    with suppress(OSError):
        return f"{GUARDIAN_VARIABLE}=".encode() in Path(f"/proc/{pid}/environ").read_bytes()
    return False
