"""What a try tells of values that nobody took, and of a job's success."""

from __future__ import annotations

import errno
import json
import logging
import os
import tempfile
from types import SimpleNamespace

import pytest
from airflow.sdk.io.store import _STORE_CACHE, attach
from fsspec.implementations.memory import MemoryFileSystem

from airflow_provider.execution.launch import Launch, _with_others
from airflow_provider.hooks.agent import AgentHook
from airflow_provider.results.object_store import ResultStore
from airflow_provider.retries.launch_retry import LaunchRetry
from llutil.entrypoint import Command
from llutil.errors import InfrastructureError, ResultError
from llutil.failure import FailureClass
from llutil.launcher.config import LaunchConfig
from llutil.launcher.run_id import TaskKey
from llutil.task_link.messages import ResultInFile
from llutil.task_link.results_file import ResultsWriter

LOG = logging.getLogger("launch")


def missing(text, results):
    error = ResultError(text)
    error.results = results
    return error


def test_the_other_values_are_stored_and_all_is_told_in_one_error():
    error = _with_others(missing("rank 0: bytes", {1: "b"}), ["a copy is there"], dict)
    assert str(error).splitlines() == ["rank 0: bytes", "a copy is there"]
    assert error.results == {1: "b"}
    assert error.failure_class is FailureClass.RESULT


def test_what_the_store_refuses_then_is_told_too():
    def refuse(_results):
        raise missing("rank 1: no room", {2: "c"})

    error = _with_others(missing("rank 0: bytes", {1: "b", 2: "c"}), [], refuse)
    assert str(error).splitlines() == ["rank 0: bytes", "rank 1: no room"]
    assert error.results == {2: "c"}


class Alarm(BaseException):
    """What Airflow's alarm raises is no Exception either."""


class PlayedHook(AgentHook):
    """A hook whose job has succeeded with these values. ``ends_with`` is what its run raises."""

    def __init__(self, *values, ends_with=None):
        super().__init__(python="/no/agent/is/to/be/started")
        self._values = values
        self._ends_with = ends_with

    def run(self, spec, *, results, **_):
        writer = ResultsWriter(results)
        self.returned = {
            rank: ResultInFile(rank, *writer.add(json.dumps(value).encode()))
            for rank, value in enumerate(self._values)
        }
        if self._ends_with is not None:
            raise self._ends_with
        return self.returned


class AlarmingStore(MemoryFileSystem):
    """The alarm comes while the file of rank 1 is written."""

    protocol = "memory"
    store: dict = {}  # noqa: RUF012 - fsspec's own way
    pseudo_dirs = [""]  # noqa: RUF012 - as above

    def size(self, path):
        if "rank_1" in path:
            raise Alarm
        return super().size(path)


@pytest.fixture
def told():
    """What a launch has told of its job's success."""
    return []


@pytest.fixture
def launch(tmp_path, monkeypatch, told):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    attach("memory", "alarming", fs=AlarmingStore())
    yield Launch(
        config=LaunchConfig(1, 1, 1),
        entrypoint=Command("x"),
        key=TaskKey("d", "t", "r"),
        try_number=1,
        result_limit=100,
        retry=LaunchRetry(attempts=1),
        store=ResultStore.of("memory://alarming@bucket", 0, SimpleNamespace(try_number=1, id="7")),
        succeeded=told.append,
    )
    _STORE_CACHE.clear()


def kept(folder):
    return {path.name: json.loads(path.read_text()) for path in folder.glob("*/*.results/*")}


def test_a_disk_without_space_is_a_fault_of_the_infrastructure(launch, monkeypatch):
    make = os.mkdir

    def refuse(path, *mode):
        if "logs-" in os.fspath(path):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)
        make(path, *mode)

    monkeypatch.setattr(os, "mkdir", refuse)
    with pytest.raises(InfrastructureError, match=r"there is no space left for /.*/logs-"):
        launch.run(PlayedHook("a"), LOG)


def test_success_is_told_before_anything_is_stored_and_once_more_with_where_it_is(launch, told):
    hook = PlayedHook("a")
    results = launch.run(hook, LOG)
    assert told == [hook.returned, results]
    assert results[0].uri.endswith("/rank_0.json")


def test_an_alarm_in_an_upload_comes_after_the_success_and_the_rest_is_kept(launch, told, tmp_path):
    hook = PlayedHook("a", "b", "c")
    with pytest.raises(Alarm):
        launch.run(hook, LOG)
    assert told == [hook.returned]
    assert kept(tmp_path) == {"rank_1.json": "b", "rank_2.json": "c"}


@pytest.mark.parametrize("error", [Alarm(), RuntimeError("a fault of a listener")])
def test_what_ends_the_hook_after_the_jobs_success_loses_no_value(
    launch, told, tmp_path, caplog, error
):
    hook = PlayedHook("a", "b", ends_with=error)
    with pytest.raises(type(error)):
        launch.run(hook, LOG)
    assert told == [hook.returned]
    assert kept(tmp_path) == {"rank_0.json": "a", "rank_1.json": "b"}
    warnings = [one.getMessage() for one in caplog.records if one.levelname == "WARNING"]
    assert [one.partition(";")[0] for one in warnings] == [
        "rank 0: what it returned is not stored",
        "rank 1: what it returned is not stored",
    ]
    assert f"json.load(open('{tmp_path}/" in warnings[0]
