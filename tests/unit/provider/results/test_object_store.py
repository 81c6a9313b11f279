"""Results that lie in a store: written whole or not at all, and read back, or said why not."""

from __future__ import annotations

import json
import logging
import os
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from airflow.sdk import ObjectStoragePath
from airflow.sdk.exceptions import (
    AirflowNotFoundException,
    AirflowOptionalProviderFeatureException,
    AirflowSecretsBackendAccessDenied,
    ErrorType,
)
from airflow.sdk.execution_time import task_runner
from airflow.sdk.execution_time.comms import ErrorResponse
from airflow.sdk.io.store import _STORE_CACHE, attach
from airflow.serialization.serialized_objects import DagSerialization
from fsspec.implementations.memory import MemoryFileSystem

from airflow_provider.operators.elastic import ElasticLaunchOperator
from airflow_provider.results.object_store import ResultStore, _write, configured_path
from airflow_provider.results.reference import reference_from_json, to_xcom
from airflow_provider.results.result_readers import StoredResultError, load_result, load_results
from airflow_provider.retries.launch_retry import LaunchRetry
from llutil.errors import ConfigError, InfrastructureError, ResultError
from llutil.launcher.run_id import TaskKey
from llutil.serialization import npz_archive
from llutil.serialization.class_values import node
from llutil.serialization.kept_value import keep_content
from llutil.task_link.messages import ResultInFile
from llutil.task_link.results_file import ResultsReader

KEY = TaskKey("dag", "train", "scheduled__2026-11-22T09:30:00+00:00", 3)
ONCE = LaunchRetry(attempts=1)


def instance(number):
    return SimpleNamespace(try_number=number, id=f"id-{number}")


def keep(folder, tmp_path, values, *, inline=0, attempt=1, key=KEY, retry=ONCE):
    """What stands in XCom for ``values``."""
    store = ResultStore.of(str(folder), inline, instance(attempt))
    with ResultsReader(tmp_path) as reader:
        results, end = {}, 0
        with open(reader.fd, "wb", closefd=False) as file:
            for rank, value in values.items():
                content = npz_archive.encode(value, rank=rank, limit=10**9)
                file.write(content)
                results[rank] = ResultInFile(rank, end, len(content))
                end += len(content)
        kept = store.keep(
            results,
            reader,
            key,
            retry=retry,
            stopped=lambda: False,
            sleep=lambda _: None,
            log=logging.getLogger("storing"),
            kept_folder=tmp_path / "rescued",
        )
        return {rank: to_xcom(value) for rank, value in kept.items()}


def files(folder):
    return [str(path.relative_to(folder)) for path in sorted(folder.rglob("*")) if path.is_file()]


@pytest.mark.parametrize("prefix", ["", "file://"])
def test_every_rank_has_a_file_in_the_folder_of_its_try(tmp_path, prefix):
    folder = tmp_path / "store"
    values = {6: {"weights": [0.5] * 100}, 7: "x" * 300}
    kept = keep(f"{prefix}{folder}", tmp_path, values)
    base = (
        "dag_id=dag/run_id=scheduled__2026-11-22T09_30_00+00_00/task_id=train/map_index=3/"
        "attempt=1_id-1"
    )
    assert files(folder) == [f"{base}/rank_6.json", f"{base}/rank_7.json"]
    assert load_results({str(rank): value for rank, value in kept.items()}) == values
    assert kept[7] == {
        "elastic_launch_result": 1,
        "uri": f"file://{folder}/{base}/rank_7.json",
        "size": 302,
        "preview": f'"{"x" * 196}...',
        "format": "json",
    }


def test_a_value_as_large_as_the_threshold_stays_and_one_byte_more_does_not(tmp_path):
    kept = keep(tmp_path / "store", tmp_path, {0: "x" * 8, 1: "x" * 9}, inline=10)
    assert kept[0] == "x" * 8
    assert reference_from_json(kept[1]).size == 11


def test_a_value_with_arrays_is_stored_however_small_it_is(tmp_path):
    kept = keep(tmp_path / "store", tmp_path, {0: {"a": np.arange(3)}}, inline=10_000)
    assert kept[0]["format"] == "npz"
    assert kept[0]["uri"].endswith("/rank_0.npz")
    assert kept[0]["preview"] == '{"a":{"__array__":0,"dtype":"int64","shape":[3]}}'
    assert load_result(kept[0])["a"].tolist() == [0, 1, 2]


def test_an_archive_can_be_read_without_this_package(tmp_path):
    value = {"a": np.eye(2), "b": [np.zeros(1)]}
    (kept,) = keep(tmp_path / "store", tmp_path, {0: value}).values()
    with np.load(kept["uri"].removeprefix("file://"), allow_pickle=False) as found:
        assert found["0"].tolist() == [[1, 0], [0, 1]]
        assert found["1"].tolist() == [0]


def test_arrays_need_numpy_where_they_are_read(tmp_path, monkeypatch):
    (kept,) = keep(tmp_path / "store", tmp_path, {0: np.zeros(2)}).values()
    monkeypatch.setitem(sys.modules, "numpy.lib", None)
    with pytest.raises(StoredResultError, match="needs numpy, which is not installed where it is"):
        load_result(kept)


def test_a_later_try_leaves_what_an_earlier_one_stored(tmp_path):
    first, second = (
        keep(tmp_path / "store", tmp_path, {0: f"try {number}"}, attempt=number)[0]
        for number in (1, 2)
    )
    assert [load_result(first), load_result(second)] == ["try 1", "try 2"]


def test_no_name_leads_out_of_the_store(tmp_path):
    keep(tmp_path / "store", tmp_path, {0: 1}, key=TaskKey("..", "a/b", "../.."))
    assert files(tmp_path / "store") == [
        "dag_id=../run_id=.._../task_id=a_b/attempt=1_id-1/rank_0.json"
    ]


def test_what_has_gone_is_told_by_its_uri(tmp_path):
    (value,) = keep(tmp_path / "store", tmp_path, {0: 1}).values()
    next((tmp_path / "store").rglob("*.json")).unlink()
    with pytest.raises(StoredResultError) as caught:
        load_result(value)
    assert f"the result at {value['uri']} is gone" in str(caught.value)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('"x"', "has 3 bytes, and had 5"),
        ("!" * 5, "cannot be read as json"),
        (json.dumps(node("zoneinfo.ZoneInfo", 1, "No/Where")), "ZoneInfoNotFoundError: "),
        (json.dumps(node("uuid.UUID", 1, 3)), "AttributeError: "),
        (json.dumps(node("pandas.DataFrame", 1, "00")), "needs pandas, which is not installed"),
    ],
)
def test_what_cannot_be_read_is_told_with_its_uri(tmp_path, content, said):
    size = max(5, len(content))
    (value,) = keep(tmp_path / "store", tmp_path, {0: "a" * (size - 2)}).values()
    next((tmp_path / "store").rglob("*.json")).write_text(content)
    with pytest.raises(StoredResultError, match=said) as caught:
        load_result(value)
    assert f"the result at {value['uri']} " in str(caught.value)


def test_a_later_version_and_another_format_are_refused(tmp_path):
    (value,) = keep(tmp_path / "store", tmp_path, {0: "abc"}).values()
    with pytest.raises(StoredResultError, match="stored in version 2"):
        load_result(value | {"elastic_launch_result": 2})
    with pytest.raises(StoredResultError, match="is 'npy'; wanted 'json' or 'npz'"):
        load_result(value | {"format": "npy"})


def test_what_is_no_reference_is_the_value_itself():
    for value in (None, 1, "file:///x", {"uri": "file:///x"}, []):
        assert load_result(value) is value


class RefusingStore(MemoryFileSystem):
    """Takes files of rank 0 alone."""

    protocol = "memory"
    store: dict = {}  # noqa: RUF012 - fsspec's own way
    pseudo_dirs = [""]  # noqa: RUF012 - as above

    def size(self, path):
        if "rank_0" not in path:
            raise OSError("no room")
        return super().size(path)


def test_what_a_store_does_not_take_is_kept_privately_and_the_rest_is_told(tmp_path):
    attach("memory", "refusing", fs=RefusingStore())
    try:
        with pytest.raises(ResultError) as caught:
            keep("memory://refusing@bucket", tmp_path, {0: "a", 1: "b", 2: {"w": np.ones(2)}})
    finally:
        _STORE_CACHE.clear()
    assert set(caught.value.results) == {0}
    folder = tmp_path / "rescued"
    assert folder.stat().st_mode & 0o77 == 0
    assert f"json.load(open({str(folder / 'rank_1.json')!r}))" in str(caught.value)
    assert f"numpy.load({str(folder / 'rank_2.npz')!r})" in str(caught.value)
    assert json.loads((folder / "rank_1.json").read_text()) == "b"
    assert np.load(folder / "rank_2.npz")["0"].tolist() == [1, 1]


def test_a_value_that_is_not_taken_stops_no_other(tmp_path):
    values = {1: "a" * 9, 2: "b" * 9, 3: "small", 0: "c" * 9}
    attach("memory", "refusing", fs=RefusingStore())
    try:
        with pytest.raises(ResultError) as caught:
            keep("memory://refusing@bucket", tmp_path, values, inline=10)
    finally:
        _STORE_CACHE.clear()
    assert set(caught.value.results) == {0, 3}
    assert caught.value.results[3] == "small"
    _, *told = str(caught.value).splitlines()
    assert [line[:7] for line in told] == ["rank 1:", "rank 2:"]
    for rank in (1, 2):
        assert json.loads((tmp_path / "rescued" / f"rank_{rank}.json").read_text()) == values[rank]


def test_a_store_that_is_away_is_waited_for_once(tmp_path, caplog):
    attach("memory", "refusing", fs=RefusingStore())
    try:
        values = dict.fromkeys((1, 2, 3), "a")
        with pytest.raises(ResultError):
            keep("memory://refusing@bucket", tmp_path, values, retry=LaunchRetry(attempts=2))
    finally:
        _STORE_CACHE.clear()
    assert len([one for one in caplog.records if "upload attempt" in one.getMessage()]) == 1


class Alarm(BaseException):
    """What Airflow's alarm raises is no Exception either."""


class AlarmingStore(RefusingStore):
    """The alarm comes while the file of rank 2 is written."""

    def size(self, path):
        if "rank_2" in path:
            raise Alarm
        return super().size(path)


def test_an_alarm_loses_no_value_and_what_is_stored_is_not_kept_too(tmp_path, caplog):
    values = {0: "a" * 9, 1: "b" * 9, 4: "c", 2: {"w": np.ones(2)}, 3: "d" * 9}
    attach("memory", "alarming", fs=AlarmingStore())
    try:
        with pytest.raises(Alarm):
            keep("memory://alarming@bucket", tmp_path, values, inline=10)
    finally:
        _STORE_CACHE.clear()
    folder = tmp_path / "rescued"
    assert files(folder) == ["rank_1.json", "rank_2.npz", "rank_3.json", "rank_4.json"]
    assert json.loads((folder / "rank_3.json").read_text()) == values[3]
    told = [one.getMessage() for one in caplog.records if "is not stored" in one.getMessage()]
    assert [line[:7] for line in told] == ["rank 1:", "rank 4:", "rank 2:", "rank 3:"]
    assert f"json.load(open({str(folder / 'rank_3.json')!r}))" in told[-1]


def test_a_value_that_nobody_took_is_copied_to_the_store(tmp_path):
    """A pod's disk goes with the pod."""
    archive = npz_archive.encode(np.ones(1), rank=5, limit=10**6)
    contents = {3: b"pickle", 4: b"[]", 5: archive}
    for rank, content in contents.items():
        keep_content(content, tmp_path / "kept", rank, pickled=rank == 3)
    store = ResultStore.of(str(tmp_path / "store"), 0, instance(1))
    told = store.copy_kept(tmp_path / "kept", KEY)
    copies = files(tmp_path / "store")
    assert [copy.rpartition("/attempt=1_id-1/")[2] for copy in copies] == [
        "rank_3.pickle",
        "rank_4.json",
        "rank_5.npz",
    ]
    for copy, content in zip(copies, contents.values(), strict=True):
        path = tmp_path / "store" / copy
        assert f"a copy of {tmp_path / 'kept' / path.name} is at file://{path}" in told
        assert path.read_bytes() == content
    assert store.copy_kept(tmp_path / "no such folder", KEY) == []


def test_a_copy_that_fails_is_told(tmp_path):
    folder = tmp_path / "kept"
    keep_content(b"pickle", folder, 3, pickled=True)
    attach("memory", "refusing", fs=RefusingStore())
    try:
        store = ResultStore.of("memory://refusing@bucket", 0, instance(1))
        (told,) = store.copy_kept(folder, KEY)
    finally:
        _STORE_CACHE.clear()
    assert f"{folder / 'rank_3.pickle'} could not be copied to memory://refusing@" in told
    assert told.endswith("/rank_3.pickle: no room")


@pytest.mark.parametrize(
    "value",
    [
        {"elastic_launch_result": 1, "uri": "file:///etc/passwd"}
        | {"size": 1, "preview": "", "format": "json"},
        {"elastic_launch_result": 1, "uri": "file:///etc/passwd"},
        {"elastic_launch_result": "value", "value": 1},
        {"elastic_launch_result": None},
    ],
)
def test_a_returned_dict_is_never_taken_for_a_reference(value):
    assert load_result(json.loads(json.dumps(to_xcom(value)))) == value


def test_a_store_that_takes_nothing_is_noticed_before_anything_runs(tmp_path):
    blocked = tmp_path / "store"
    blocked.write_text("a file where a folder should be")
    store = ResultStore.of(str(blocked), 0, instance(1))
    with pytest.raises(
        InfrastructureError, match="nothing can be written to results_path file:///"
    ):
        store.check()


def test_a_store_that_takes_something_is_left_as_it_was(tmp_path):
    ResultStore.of(str(tmp_path / "store"), 0, instance(1)).check()
    assert files(tmp_path / "store") == []


def test_a_scheme_without_its_provider_is_bad_configuration():
    with pytest.raises(ConfigError, match="No filesystem registered for scheme s3"):
        ResultStore.of("s3://bucket/x", 0, instance(1))


@pytest.mark.parametrize(
    ("answer", "kind", "text"),
    [
        (ErrorType.CONNECTION_NOT_FOUND, ConfigError, "'s3://conn@bucket/x', which cannot be used"),
        (ErrorType.API_SERVER_ERROR, InfrastructureError, "Airflow does not say whether there is"),
    ],
)
def test_a_connection_that_cannot_be_looked_up_now_is_no_bad_configuration(
    monkeypatch, answer, kind, text
):
    def not_found(*_):
        raise AirflowNotFoundException("The conn_id `conn` isn't defined")

    supervisor = SimpleNamespace(send=lambda _: ErrorResponse(error=answer))
    monkeypatch.setattr(task_runner, "SUPERVISOR_COMMS", supervisor, raising=False)
    monkeypatch.setattr("airflow.sdk.io.get_fs", not_found)
    with pytest.raises(kind, match=text):
        ResultStore.of("s3://conn@bucket/x", 0, instance(1))


@pytest.mark.parametrize(
    ("error", "kind", "text"),
    [
        (
            ConnectionError("no route to host"),
            InfrastructureError,
            "now: ConnectionError: no route",
        ),
        (RuntimeError("credentials: 503"), InfrastructureError, "now: RuntimeError: credentials"),
        (ImportError("no s3fs"), ConfigError, "here: ImportError: no s3fs"),
        (AirflowOptionalProviderFeatureException("s3fs"), ConfigError, "here: AirflowOptional"),
        (AirflowSecretsBackendAccessDenied("403"), ConfigError, "here: AirflowSecretsBackend"),
    ],
)
def test_what_may_be_over_soon_is_no_bad_configuration(monkeypatch, error, kind, text):
    def fail(*_):
        raise error

    monkeypatch.setattr("airflow.sdk.io.get_fs", fail)
    with pytest.raises(kind, match=f"'s3://conn@bucket/x', which cannot be used {text}"):
        ResultStore.of("s3://conn@bucket/x", 0, instance(1))


def test_a_file_that_could_not_be_finished_is_not_there(tmp_path):
    folder = tmp_path / "store"
    store = ResultStore.of(str(folder), 0, instance(1))
    with ResultsReader(tmp_path) as reader:
        os.write(reader.fd, b"x" * 1000)
        with pytest.raises(ResultError) as caught:
            store.keep(
                {0: ResultInFile(0, 0, 2000)},  # the agent wrote less than it said
                reader,
                KEY,
                retry=ONCE,
                stopped=lambda: False,
                sleep=lambda _: None,
                log=logging.getLogger("storing"),
                kept_folder=tmp_path / "rescued",
            )
    assert "ends at 1,000 of 2,000 bytes" in str(caught.value)
    assert files(folder) == []


class FlakyStore(MemoryFileSystem):
    """Does not take what it is given first."""

    protocol = "memory"
    store: dict = {}  # noqa: RUF012 - fsspec's own way
    pseudo_dirs = [""]  # noqa: RUF012 - as above
    asked = 0

    def size(self, path):
        type(self).asked += 1
        if self.asked == 1:
            raise ConnectionError("reset by peer")
        return super().size(path)


def test_an_upload_that_fails_once_is_repeated_and_that_is_a_warning(tmp_path, caplog):
    attach("memory", "flaky", fs=FlakyStore())
    try:
        kept = keep("memory://flaky@bucket", tmp_path, {0: [1]}, retry=LaunchRetry(attempts=2))
        assert load_result(kept[0]) == [1]
    finally:
        _STORE_CACHE.clear()
    (warning,) = [one.getMessage() for one in caplog.records if one.levelname == "WARNING"]
    assert warning.startswith("upload attempt 1 of 2 failed; the next one follows in ")
    assert "ConnectionError: reset by peer" in warning


def test_a_file_has_its_name_when_it_is_complete(tmp_path):
    seen = []

    def pieces():
        yield b"first"
        seen.append(files(tmp_path))
        yield b"second"

    _write(ObjectStoragePath(f"file://{tmp_path}/x.json"), pieces(), 11)
    assert seen == [["x.json.part"]]
    assert (tmp_path / "x.json").read_bytes() == b"firstsecond"


@pytest.mark.parametrize("given", ["results", "", 3])
def test_a_path_that_means_something_else_on_each_worker_is_refused(given):
    with pytest.raises(ConfigError, match="results_path is "):
        ElasticLaunchOperator(task_id="t", entrypoint="x.py", results_path=given)


def test_a_path_is_rendered_and_survives_serialisation(tmp_path):
    from airflow.sdk import DAG

    with DAG("d") as dag:
        for name, path in (
            ("text", "file:///r/{{ ds }}"),
            ("object", ObjectStoragePath("file://conn@/r/{{ ds }}")),
        ):
            ElasticLaunchOperator(task_id=name, entrypoint="x.py", results_path=path)
            ElasticLaunchOperator.gang(
                task_id=f"{name}_gang",
                nodes=2,
                entrypoint="x.py",
                rdzv_conn_id="c",
                results_path=path,
            )
    serialised = json.dumps(DagSerialization.to_dict(dag))
    assert serialised.count("/r/{{ ds }}") == 4
    for name in ("text", "object"):
        task = dag.get_task(name)
        task.render_template_fields({"ds": "2026"}, task.get_template_env())
        assert str(task.results_path).endswith("/r/2026")


def test_a_deployment_can_have_a_path_for_all_its_tasks(monkeypatch):
    assert configured_path() == ""
    monkeypatch.setenv("AIRFLOW__ELASTIC_LAUNCH__RESULTS_PATH", "s3://conn@bucket/results")
    assert configured_path() == "s3://conn@bucket/results"
