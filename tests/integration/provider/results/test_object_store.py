"""Results that are too large for XCom: from ranks to an object store, and back to a task
downstream.
"""

from __future__ import annotations

import json
import os
import signal
import tempfile
from pathlib import Path

import pytest
from airflow.sdk import DAG, ObjectStoragePath
from fsspec.implementations.memory import MemoryFileSystem

from airflow_provider.decorators.elastic import elastic_task
from airflow_provider.results.result_readers import load_results
from airflow_provider.retries.launch_retry import LaunchRetry
from llutil.errors import ResultError
from tests.support.airflow_task import run_task

pytestmark = [pytest.mark.launch, pytest.mark.usefixtures("warm_agents")]

SIZE = 50_000_000


@pytest.fixture(autouse=True)
def own_signal_handlers():
    """Airflow's task runner sets a handler for SIGTERM and leaves it."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.fixture
def task_with(tmp_path):
    """Makes a task of two ranks, of which the first returns 50 MB."""

    def train(size):
        if os.environ["RANK"] == "0":
            return {"text": "x" * size, "count": size}
        return {"loss": 0.5}

    def make(results_path, train=train, **parameters):

        with DAG("job") as dag:
            task = elastic_task(
                task_id="train", nproc_per_node=2, results_path=results_path, **parameters
            )(train)(SIZE).operator
        dag.fileloc = str(tmp_path / "dag.py")
        return task

    return make


def rescued():
    folder = Path(tempfile.gettempdir(), f"elastic-launch-{os.getuid()}")
    return sorted(folder.glob("*.results/*"))


def with_arrays(size):
    import torch

    if os.environ["RANK"] == "0":
        return {"count": size, "weights": torch.ones(size // 4), "half": torch.ones(2).bfloat16()}
    return {"loss": 0.5}


def test_a_large_value_is_stored_with_its_arrays_and_a_small_one_stays(task_with, tmp_path):
    path = ObjectStoragePath(f"file://{tmp_path}/{{{{ ds }}}}")
    outcome = run_task(task_with(path, with_arrays, results_format="npz"), run_id="r:1")
    assert (outcome.state, outcome.error) == ("success", None)
    returned = outcome.xcoms["return_value"]
    assert returned["1"] == outcome.xcoms["rank_1"] == {"loss": 0.5}
    reference = returned["0"]
    assert reference == outcome.xcoms["rank_0"]
    assert reference["preview"] == (
        '{"count":50000000,"weights":{"__array__":0,"dtype":"float32","shape":[12500000]},'
        '"half":{"__array__":1,"dtype":"float32","shape":[2]}}'
    )
    assert len(json.dumps(reference)) < 1000
    (file,) = (path for path in tmp_path.rglob("*") if path.is_file() and path.name != "dag.py")
    assert reference["uri"] == f"file://{file}"
    assert reference["size"] == file.stat().st_size
    folder = str(file.parent.relative_to(tmp_path))
    assert folder.startswith("2026-11-22/dag_id=job/run_id=r_1/task_id=train/attempt=1_")
    loaded = load_results(returned)
    assert loaded[1] == {"loss": 0.5}
    assert loaded[0]["count"] == SIZE
    assert (loaded[0]["weights"].shape, loaded[0]["weights"].sum()) == ((SIZE // 4,), SIZE // 4)
    assert loaded[0]["half"].tolist() == [1.0, 1.0]
    assert SIZE < reference["size"] < SIZE + 2000


class FullStore(MemoryFileSystem):
    """Takes what is small, and a large file never."""

    protocol = "memory"
    store: dict = {}  # noqa: RUF012 - fsspec's own way
    pseudo_dirs = [""]  # noqa: RUF012 - as above
    tried = 0

    def size(self, path):
        if super().size(path) > 1000:
            type(self).tried += 1
            raise OSError("no room")
        return super().size(path)


def test_a_store_that_refuses_fails_the_task_for_good_and_nothing_is_lost(task_with, monkeypatch):
    from airflow.sdk.io.store import _STORE_CACHE, attach

    monkeypatch.setattr(FullStore, "tried", 0)
    attach("memory", "full", fs=FullStore())
    retry = LaunchRetry(attempts=2, wait_initial=0, jitter=0)
    try:
        outcome = run_task(task_with("memory://full@bucket/results", launch_retry=retry))
    finally:
        _STORE_CACHE.clear()
    assert isinstance(outcome.error, ResultError)
    assert outcome.error.failure_class == "result"
    assert outcome.state == "failed"
    assert outcome.xcoms == {"rank_1": {"loss": 0.5}}, "it needs no store"
    assert FullStore.tried == 2
    said = str(outcome.error)
    assert "could not be stored at memory://full@" in said
    assert "OSError: no room" in said
    kept = rescued()
    assert [path.name for path in kept] == ["rank_0.json"]
    assert str(kept[0].parent) in said
    assert json.loads(kept[0].read_text())["count"] == SIZE
    assert FullStore.store == {}
    for path in kept:
        path.unlink()
    kept[0].parent.rmdir()
