"""The folder of a job's checkpoints: the same after retries and clears and for all nodes of a gang,
and another one in another deployment.
"""

from __future__ import annotations

import datetime as dt
import logging
from types import SimpleNamespace

import pytest
from airflow.sdk.exceptions import AirflowRuntimeError, ErrorType
from airflow.sdk.execution_time.comms import ErrorResponse

from airflow_provider.execution.checkpoint_job import FIRST_START, checkpoint_job
from airflow_provider.gang.node import GangNode
from airflow_provider.parameters.task_key import task_key

LOG = logging.getLogger("t")
DUE = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
SECOND = dt.timedelta(seconds=1)


class PlayedDeployment:
    """An Airflow in which a scheduled DAG run was started at ``started``. Its task is a gang of
    ``nodes``, or a single instance.
    """

    def __init__(self, started, nodes=0):
        self.dag_run = SimpleNamespace(
            run_after=DUE, start_date=started, clear_number=0, run_id="scheduled__2026"
        )
        self.nodes = nodes
        self.states = dict.fromkeys(range(nodes), "queued")
        self.stores = {}
        self.xcoms = {}
        self.requests = []

    def clear(self, started):
        """Clear the run, which has ended."""
        self.dag_run.start_date = started
        self.dag_run.clear_number += 1
        self.states = dict.fromkeys(range(self.nodes), "queued")

    def run(self, number=-1, sleep=lambda _: None):
        """A try of one instance begins; the name of its folder."""
        self.requests.clear()
        self.begin(number)
        context = {"ti": self._ti(number), "dag_run": self.dag_run}
        context["task_state_store"] = self._store(number)
        key = task_key(context)
        node = GangNode(key, self.nodes, 1, "") if self.nodes else None
        return checkpoint_job(key, node, context, LOG, sleep)

    def begin(self, number):
        """As Airflow does: what the instance has pushed before is gone."""
        self.states[number] = "running"
        self.xcoms.pop(number, None)

    def _store(self, number):
        values = self.stores.setdefault(number, {})

        def set_(key, value, **_):
            self.requests.append("set")
            values[key] = value

        def get(key):
            self.requests.append("get")
            return values.get(key)

        return SimpleNamespace(get=get, set=set_)

    def _ti(self, number):
        def push(key, value):
            self.requests.append("push")
            self.xcoms[number] = value

        def pull(task_ids, key):
            self.requests.append("pull")
            return list(self.xcoms.values())

        def states(**_):
            self.requests.append("states")
            return {self.dag_run.run_id: {f"t_{n}": state for n, state in self.states.items()}}

        return SimpleNamespace(
            dag_id="d",
            task_id="t",
            run_id=self.dag_run.run_id,
            map_index=number,
            xcom_push=push,
            xcom_pull=pull,
            get_task_states=states,
        )


@pytest.fixture
def solo():
    return PlayedDeployment(DUE + SECOND)


@pytest.fixture
def gang():
    return PlayedDeployment(DUE + SECOND, nodes=3)


def test_a_retry_and_a_clear_keep_the_folder(solo):
    first = solo.run()
    assert solo.requests == ["get", "set"]
    assert solo.run() == first
    assert solo.requests == ["get"]
    solo.clear(DUE + 3600 * SECOND)
    assert solo.run() == first


def test_the_same_dag_at_the_same_time_in_another_deployment_has_another_folder(solo):
    other = PlayedDeployment(DUE + SECOND + dt.timedelta(microseconds=1))
    assert other.run() != solo.run()


def test_mapped_instances_that_are_no_gang_have_folders_of_their_own(solo):
    assert len({solo.run(number) for number in (-1, 0, 1)}) == 3


def test_all_nodes_of_a_gang_have_one_folder_without_asking_each_other(gang):
    assert len({gang.run(number) for number in range(3)}) == 1
    assert gang.requests == ["get", "set", "push"]


def test_nodes_of_a_gang_keep_the_folder_through_clears(gang):
    before = {gang.run(number) for number in range(3)}
    gang.clear(DUE + 3600 * SECOND)
    gang.clear(DUE + 7200 * SECOND)
    assert {gang.run(number) for number in range(3)} == before


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0)])
def test_a_node_that_first_runs_after_a_clear_has_the_folder_of_the_others(gang, order):
    before = {gang.run(number) for number in (0, 1)}
    gang.clear(DUE + 3600 * SECOND)
    assert {gang.run(number) for number in order} == before


def test_a_node_waits_for_a_sibling_that_has_just_started(gang):
    before = gang.run(0)
    gang.clear(DUE + 3600 * SECOND)
    gang.begin(0)
    slept = []

    def sleep(seconds):
        slept.append(seconds)
        gang.xcoms[0] = gang.stores[0][FIRST_START]

    assert gang.run(1, sleep) == before
    assert len(slept) == 1


def test_nodes_of_which_none_has_run_before_agree_after_a_clear_and_wait_for_a_limited_time(gang):
    gang.clear(DUE + 3600 * SECOND)
    slept = []
    for number in range(3):
        gang.begin(number)
    names = {gang.run(number, slept.append) for number in range(3)}
    assert len(names) == 1
    assert sum(slept) <= 10


def test_other_values_under_its_keys_are_ignored(gang):
    before = gang.run(0)
    gang.clear(DUE + 3600 * SECOND)
    gang.xcoms[2] = {"not": "a text"}
    gang.stores[1] = {FIRST_START: 7}
    assert gang.run(1) == before


@pytest.mark.parametrize(
    "error",
    [
        AirflowRuntimeError(ErrorResponse(error=ErrorType.API_SERVER_ERROR)),
        ConnectionError("a store of the user's own"),
    ],
)
@pytest.mark.parametrize("request_", ["get", "set"])
def test_an_airflow_that_does_not_answer_is_a_failure_of_infrastructure_and_no_other_folder(
    solo, error, request_
):
    def fail(*_, **__):
        raise error

    answers = {"get": lambda _: None} | {request_: fail}
    solo._store = lambda _: SimpleNamespace(**answers)
    with pytest.raises(Exception, match="does not say where this task has its checkpoints") as it:
        solo.run()
    assert it.value.failure_class == "infrastructure"


def test_without_a_dag_run_and_a_store_there_is_a_name(solo):
    """A user's own test that calls ``execute``."""
    ti = solo._ti(-1)
    context = {"ti": ti}
    assert checkpoint_job(task_key(context), None, context, LOG).startswith("d.t.")
