"""All nodes of a gang at once in one process, each with an agent that plays a part; no job runs
here.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace

import pytest
import structlog

from airflow_provider.execution.dag_test import (
    DAG_TEST_RESULTS,
    DagTestGang,
    GangResults,
    results_of_dag_test,
)
from airflow_provider.execution.launch import Launch
from airflow_provider.gang.node import GangNode
from airflow_provider.hooks.agent import AgentHook
from airflow_provider.retries.launch_retry import LaunchRetry
from llutil.entrypoint import Command
from llutil.errors import ConfigError, RendezvousError, StoppedError, WorkersFailedError
from llutil.launcher.config import LaunchConfig
from llutil.launcher.run_id import TaskKey
from tests.support import fake_agent
from tests.support.alarms import alarm_when
from tests.support.threads import no_thread_left

pytestmark = pytest.mark.fault

_FAKE_AGENT = Path(fake_agent.__file__)
_KEY = TaskKey("d", "t", "r", 0)


@pytest.fixture(autouse=True)
def temporary(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


@pytest.fixture
def gang(tmp_path):
    """Makes a gang whose nodes' agents play these parts. The agents of ``late`` nodes begin once
    the file ``go`` exists.
    """
    interpreter = tmp_path / "python"
    interpreter.write_text(
        '#!/bin/sh\nwhile [ ! -e "$BEGINS_WITH" ]; do sleep 0.02; done\n'
        f'exec {sys.executable} {_FAKE_AGENT} "$@"\n'
    )
    interpreter.chmod(0o700)

    def make(*parts, late=()):
        node = GangNode(_KEY, len(parts), 1, "life")
        hooks = []
        for number, part in enumerate(parts):
            begins_with = tmp_path / "go" if number in late else interpreter
            env = {"FAKE_AGENT_PART": part, "BEGINS_WITH": str(begins_with)}
            hooks.append(AgentHook(python=str(interpreter), env=env, label=f"node {number}"))
        return DagTestGang(node, lambda label: hooks[int(label.removeprefix("node "))])

    with no_thread_left():
        yield make
    folder = tmp_path / f"elastic-launch-{Path(tmp_path).stat().st_uid}"
    assert not list(folder.glob("*.orphan_log"))


@pytest.fixture
def launch():
    config = LaunchConfig(1, 2, 1, run_id="r", shutdown_timeout=0.2)
    return Launch(
        config=config,
        entrypoint=Command("x"),
        key=_KEY,
        try_number=1,
        result_limit=100,
        retry=LaunchRetry(),
    )


@pytest.fixture
def logged():
    with structlog.testing.capture_logs() as records:
        yield lambda: [line for record in records for line in record["event"].split("\n")]


def all_run(lines, *nodes):
    return {f"[node {node}] [rank 0] running" for node in nodes} <= set(lines)


def run(gang, launch):
    return gang.run(launch, structlog.get_logger("t"))


def test_every_node_runs_and_each_line_of_the_log_says_whose_it_is(gang, launch, logged):
    found = run(gang("succeeds", "succeeds", "succeeds"), launch)
    assert found.results == {node: {0: {"run_id": "r"}, 1: None} for node in range(3)}
    assert found.world_size == 2
    for node in range(3):
        assert f"[node {node}] [rank 0] hello from rank 0" in logged()


def test_a_node_that_fails_stops_the_others_and_its_error_is_the_one_that_counts(
    gang, launch, logged, tmp_path
):
    made = gang("stops_when_asked", "fails_like_a_worker", "stops_when_asked", late=[1])
    with (
        alarm_when(lambda: all_run(logged(), 0, 2), (tmp_path / "go").touch),
        pytest.raises(WorkersFailedError, match="rank 1 failed: ValueError: bad"),
    ):
        run(made, launch)
    for node in (0, 2):
        assert f"[node {node}] [rank 0] asked to stop: node 1 failed" in logged()


def test_the_others_begin_when_node_0_has_said_where_it_serves_the_ledger(gang, launch, logged):
    found = run(gang("shows_its_options", "shows_its_options"), launch)
    shown = [found.results[node][0][1] for node in (0, 1)]
    assert [options["serves"] for options in shown] == ["True", "False"]
    assert len({options["secret"] for options in shown}) == 1
    assert shown[0]["secret"] not in "".join(logged())


def test_nobody_else_begins_if_node_0_fails_before_that(gang, launch, logged):
    with pytest.raises(ConfigError):
        run(gang("lacks_llutil", "succeeds"), launch)
    assert len([text for text in logged() if text.startswith("launching")]) == 1


def test_no_node_launches_again_by_itself(gang, launch, logged):
    with pytest.raises(RendezvousError, match="store lost"):
        run(gang("loses_its_rendezvous", "stops_when_asked"), launch)
    assert len([text for text in logged() if text.startswith("launching")]) == 2


def test_a_stop_from_a_signal_handler_ends_all_of_them(gang, launch, logged):
    made = gang("stops_when_asked", "stops_when_asked")
    with (
        alarm_when(lambda: all_run(logged(), 0, 1), lambda: made.stop("killed")),
        pytest.raises(StoppedError, match="killed"),
    ):
        run(made, launch)
    for node in (0, 1):
        assert f"[node {node}] [rank 0] asked to stop: killed" in logged()


def test_an_interruption_of_the_task_ends_all_of_them_and_is_raised(gang, launch, logged):
    class Timeout(BaseException):
        pass

    def interrupt():
        raise Timeout

    made = gang("stops_when_asked", "stops_when_asked")
    with pytest.raises(Timeout), alarm_when(lambda: all_run(logged(), 0, 1), interrupt):
        run(made, launch)
    for node in (0, 1):
        wanted = f"[node {node}] [rank 0] asked to stop: the task was interrupted by Timeout"
        assert wanted in logged()


@pytest.mark.parametrize(
    ("pushed", "found"),
    [
        ([], False),
        (["life"], True),
        (["an earlier life"], False),
        (["an earlier life", "life"], True),
    ],
)
def test_siblings_find_the_run_of_their_own_life(pushed, found):
    run = GangResults({0: {0: "a"}, 1: {1: None}}, 2)

    def xcom_pull(task_ids, key):
        assert (task_ids, key) == ("t", DAG_TEST_RESULTS)
        values = [run.to_json(life) for life in pushed]
        return values[0] if len(values) == 1 else values

    node = GangNode(_KEY, 2, 1, "life")
    assert results_of_dag_test(SimpleNamespace(xcom_pull=xcom_pull), node) == (
        run if found else None
    )


def test_without_xcom_the_siblings_know_the_ranks_only():
    run = GangResults({0: {0: "a"}, 1: {1: "b"}}, 2)
    assert run.without_values() == GangResults({0: {0: None}, 1: {1: None}}, 2)
