"""What a worker knows of itself, and what the same calls do in a script run by hand."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from llutil import worker
from llutil.chaos import oom
from llutil.chaos.rank_faults import RankFaults
from llutil.chaos.variable import CHAOS
from llutil.checkpoints.place import EVERY, FOLDER, ROUND
from llutil.errors import ConfigError, InfrastructureError
from llutil.events.events import ENVIRONMENT, Events
from llutil.events.gate import Kinds
from llutil.events.rank_slot import Doing

FACTS: list[tuple[Callable[[], object], str]] = [
    (worker.rank, "RANK"),
    (worker.local_rank, "LOCAL_RANK"),
    (worker.world_size, "WORLD_SIZE"),
    (worker.local_world_size, "LOCAL_WORLD_SIZE"),
    (worker.group_rank, "GROUP_RANK"),
    (worker.restart_count, "TORCHELASTIC_RESTART_COUNT"),
]


@pytest.fixture(autouse=True)
def nobody(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Each test begins outside a worker, in a process that has looked nothing up."""
    for name in (
        CHAOS,
        ENVIRONMENT,
        EVERY,
        FOLDER,
        "TORCHELASTIC_RUN_ID",
        *(name for _, name in FACTS),
    ):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(worker, "_state", worker._ProcessState())
    yield
    for kept in (worker._state.attached, worker._state.private):
        if kept is not None:
            kept.close()


@pytest.fixture
def page(tmp_path: Path) -> Iterator[Events]:
    with Events(folder=tmp_path) as events:
        yield events


def become(monkeypatch: pytest.MonkeyPatch, page: Events, local_rank: int) -> None:
    monkeypatch.setenv(ENVIRONMENT, page.path)
    monkeypatch.setenv("LOCAL_RANK", str(local_rank))


@pytest.mark.parametrize(("fact", "name"), FACTS)
def test_a_rank_fact_is_the_environments(
    fact: Callable[[], object], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, "12")
    assert fact() == 12


@pytest.mark.parametrize(("fact", "name"), [*FACTS, (worker.run_id, "TORCHELASTIC_RUN_ID")])
def test_outside_a_worker_a_rank_fact_says_what_is_missing(
    fact: Callable[[], object], name: str
) -> None:
    with pytest.raises(ConfigError, match=f"not a worker: {name} is not in its environment"):
        fact()


def test_a_rank_that_is_no_number_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "first")
    with pytest.raises(ConfigError, match="RANK is 'first'"):
        worker.rank()


def test_the_run_id_is_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "17")
    assert worker.run_id() == "17"


def test_progress_goes_to_the_workers_own_slot(
    page: Events, monkeypatch: pytest.MonkeyPatch
) -> None:
    become(monkeypatch, page, 3)
    worker.progress(5, total=9)
    worker.progress(6)
    assert page.progress() == {3: (6, 9)}


def test_the_seeds_values_write_the_same_slot(
    page: Events, monkeypatch: pytest.MonkeyPatch
) -> None:
    become(monkeypatch, page, 3)
    worker.events().progress_bar_iter.value = 4
    assert page.slot(3).step == 4


def test_flags_are_those_of_the_agents_page(page: Events, monkeypatch: pytest.MonkeyPatch) -> None:
    become(monkeypatch, page, 0)
    page.stop_all_tasks.set()
    assert worker.events().stop_all_tasks.is_set()
    assert worker.events() is worker.events()


def test_outside_a_worker_progress_does_nothing_and_flags_are_down() -> None:
    worker.progress(1, 2)
    assert not worker.events().stop_all_tasks.is_set()
    assert worker.events().progress() == {}
    worker.events().pause.set()
    assert worker.events().pause.is_set()


def test_what_was_looked_up_outside_does_not_hide_a_worker(
    page: Events, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker.progress(1)
    worker.events()
    become(monkeypatch, page, 1)
    worker.progress(2)
    assert page.progress() == {1: (2, 0)}
    assert worker.events().path == page.path


def test_a_page_that_is_gone_is_an_error_and_not_silence(
    page: Events, monkeypatch: pytest.MonkeyPatch
) -> None:
    become(monkeypatch, page, 0)
    page.close()
    with pytest.raises(InfrastructureError, match="no event page at"):
        worker.progress(1)
    with pytest.raises(InfrastructureError, match="no event page at"):
        worker.events()


def test_a_page_without_a_local_rank_says_what_is_missing(
    page: Events, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(ENVIRONMENT, page.path)
    with pytest.raises(ConfigError, match="LOCAL_RANK is not in its environment"):
        worker.progress(1)


def test_a_script_run_by_hand_saves_and_resumes_below_its_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert worker.resume() is None
    with worker.checkpoint(3) as folder:
        Path(folder, "state").write_text("3")
    monkeypatch.setattr(worker, "_state", worker._ProcessState())
    done = worker.resume()
    assert done is not None
    assert (done.step, done.world_size) == (3, 1)
    assert Path(done.path, "state").read_text() == "3"
    assert Path(done.path).parent == tmp_path / "checkpoints"


def test_ranks_of_a_job_without_a_checkpoint_path_take_nothing_of_another_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor wait for each other: the notes of their agreement would lie in a folder of all jobs."""
    monkeypatch.chdir(tmp_path)
    with worker.checkpoint(3):
        pass
    told = {ROUND: "1-1-x", "WORLD_SIZE": "2", "TORCHELASTIC_RUN_ID": "train-42"}
    for name, value in told.items():
        monkeypatch.setenv(name, value)
    for rank in ("1", "0"):
        monkeypatch.setattr(worker, "_state", worker._ProcessState())
        monkeypatch.setenv("RANK", rank)
        assert worker.resume() is None
    assert not (tmp_path / "checkpoints" / "train-42").exists()
    monkeypatch.setenv("GROUP_WORLD_SIZE", "2")
    monkeypatch.setattr(worker, "_state", worker._ProcessState())
    assert worker.resume() is None
    with pytest.raises(ConfigError, match="has no place for checkpoints"):
        worker.checkpoint(4)


def test_a_fork_is_another_process_with_checkpoints_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with worker.checkpoint(1):
        pass
    own = worker._state.saves
    pid = os.fork()
    if pid == 0:
        os._exit(0 if worker._state.saves is None else 1)
    assert os.waitpid(pid, 0)[1] == 0
    assert worker._state.saves is own


def test_a_step_goes_to_the_workers_own_slot_with_its_metrics(
    page: Events, monkeypatch: pytest.MonkeyPatch
) -> None:
    become(monkeypatch, page, 3)
    assert worker.step(5, 9, loss=0.5) == worker.Todo(checkpoint=False, stop=False)
    assert page.progress() == {3: (5, 9)}
    assert page.metrics() == {3: {"loss": 0.5}}


def test_a_worker_does_at_a_step_what_its_agent_decided(
    page: Events, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    become(monkeypatch, page, 3)
    monkeypatch.setenv(FOLDER, str(tmp_path / "job"))
    worker.step(1)
    assert page.gate.raise_gate(1, time.monotonic() + 30).furthest == 2
    page.gate.open_gate(1, 2, Kinds.CHECKPOINT | Kinds.STOP)
    assert worker.step(2) == (True, True)
    slot = page.slot(3)
    with worker.checkpoint(2):
        assert (slot.doing, slot.saved, slot.gate) == (Doing.CHECKPOINT, 0, 0)
    assert (slot.doing, slot.saved, slot.gate) == (Doing.STEPS, 3, 1)


@pytest.mark.parametrize("kind", ["worker", "by hand"])
def test_steps_ask_for_a_checkpoint_as_often_as_the_environment_says(
    kind: str, page: Events, monkeypatch: pytest.MonkeyPatch
) -> None:
    if kind == "worker":
        become(monkeypatch, page, 0)
    monkeypatch.setenv(EVERY, "3")
    assert [worker.step(step).checkpoint for step in range(1, 7)] == [False, False, True] * 2


def test_an_interval_that_is_no_number_of_steps_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(EVERY, "10min")
    with pytest.raises(ConfigError, match="LLUTIL_CHECKPOINT_EVERY is '10min'"):
        worker.step(1)


def test_a_rank_whose_process_ends_is_waited_for_by_nobody(tmp_path: Path) -> None:
    program = """
import os, sys
from llutil import worker
from llutil.errors import CheckpointError
os.environ["RANK"] = "0" if os.fork() else "1"
with worker.checkpoint(1): pass
if worker.rank() == 1: sys.exit()
try:
    with worker.checkpoint(2): pass
except CheckpointError as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env={
            "PYTHONPATH": str(Path(__file__).parents[2]),
            FOLDER: str(tmp_path / "job"),
            ROUND: "r1",
            "WORLD_SIZE": "2",
        },
    )
    assert "the processes of ranks [1] have ended" in done.stdout, done.stderr


def test_a_script_run_by_hand_does_what_its_own_flags_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert worker.step(1, 10, loss=0.5) == (False, False)
    worker.events().trigger_save_checkpoint.set()
    worker.events().stop_all_tasks.set()
    assert worker.step(2) == (True, True)
    with worker.checkpoint(2):
        pass
    assert worker.events().finished_save_checkpoint.is_set()


def test_a_worker_needs_neither_torch_nor_fsspec_to_step_and_save(tmp_path: Path) -> None:
    program = (
        "import sys; from llutil.launcher import worker; worker.step(1, 2, loss=3.0)\n"
        "with worker.checkpoint(1): pass\n"
        "print(sorted({'torch', 'numpy', 'fsspec', 'grpc', 'airflow'} & set(sys.modules)))"
    )
    output = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        env={"PYTHONPATH": str(Path(__file__).parents[2])},
    )
    assert output.stdout.strip() == "[]", output.stderr


def test_a_rank_is_struck_where_its_environment_says_so(
    monkeypatch: pytest.MonkeyPatch, page: Events, tmp_path: Path
) -> None:
    become(monkeypatch, page, 1)
    sizes = {"RANK": "1", "WORLD_SIZE": "2", "GROUP_RANK": "0", "GROUP_WORLD_SIZE": "1"}
    faults = (oom(rank=1, step=2), oom(rank=0, step=1))
    notes = str(tmp_path / "notes")
    told = RankFaults(faults=faults, memory=notes, agent=os.getpid(), agent_start=1)
    for name, value in {**sizes, "LLUTIL_LOCAL_RANK": "1", **told.variable()}.items():
        monkeypatch.setenv(name, value)
    assert worker.step(1, 9) == worker.Todo()
    with pytest.raises(MemoryError):
        worker.step(2, 9)
    assert worker.step(2, 9) == worker.Todo()
