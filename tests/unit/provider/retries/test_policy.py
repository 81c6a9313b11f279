"""The policy as Airflow asks it, and how it reaches every kind of task."""

from __future__ import annotations

import datetime as dt
import logging
from types import SimpleNamespace

import pytest
from airflow.sdk import DAG, TaskGroup
from airflow.sdk.definitions.retry_policy import RetryAction
from airflow.serialization.serialized_objects import DagSerialization

from airflow_provider.decorators.elastic import elastic_task
from airflow_provider.operators.elastic import DEFAULT_RETRY_POLICY, ElasticLaunchOperator
from airflow_provider.retries.policy import KEY, ElasticRetryPolicy, NoMoreTriesError, RetryRow
from llutil.errors import AgentLostError, ConfigError, ResultError, StoppedError, WorkersFailedError
from llutil.failure import FailureClass, JobFailure
from llutil.task_link.agent_record import AgentRecord
from llutil.task_link.messages import JobFailed
from tests.support.rendezvous_values import failure

LOG = logging.getLogger("task")


class Tries:
    """The tries of one task instance, and Airflow's answers about it."""

    def __init__(self, policy=None, retries=3):
        self.policy = policy or ElasticRetryPolicy()
        self.kept = {}
        self.max_tries = retries
        self.number = 0
        self.clears = 0
        self.task = None

    @property
    def context(self):
        run = SimpleNamespace(clear_number=self.clears)
        store = SimpleNamespace(get=self.kept.get, set=self.kept.__setitem__)
        ti = SimpleNamespace(try_number=self.number, max_tries=self.max_tries, task=self.task)
        return {"ti": ti, "task_state_store": store, "dag_run": run}

    def begin(self, left=None):
        self.number += 1
        self.policy.begin(self.context, left, LOG)

    def fail(self, error):
        return self.policy.evaluate(error, self.number, self.max_tries, self.context)

    def clear(self):
        self.max_tries = self.number + 3


def memory_error():
    error = WorkersFailedError("rank 0: no memory")
    error.job_failure = JobFailure(failure_class=FailureClass.OUT_OF_MEMORY)
    return error


def test_a_value_that_cannot_be_handed_on_does_not_repeat_the_training():
    tries = Tries()
    tries.begin()
    decision = tries.fail(ResultError("rank 0: value is bytes"))
    assert decision.action is RetryAction.FAIL
    assert decision.reason == (
        "result (rank 0: value is bytes): not tried again: its class has none"
    )


@pytest.mark.parametrize("succeeded", [True, False])
def test_what_fails_after_the_job_has_succeeded_does_not_repeat_it(succeeded):
    """Airflow itself pushes ``return_value``, and users have hooks that run after that."""
    tries = Tries()
    tries.begin()
    tries.task = SimpleNamespace(job_succeeded=succeeded)
    decision = tries.fail(RuntimeError("the API server is away"))
    assert decision.action is (RetryAction.FAIL if succeeded else RetryAction.DEFAULT)
    assert ("in XCom under rank_<n>" in decision.reason) == succeeded


def test_out_of_memory_is_tried_once_more_and_a_clear_gives_it_another():
    tries = Tries()
    for _ in range(2):
        tries.begin()
        decision = tries.fail(memory_error())
        assert decision.action is RetryAction.RETRY
        assert decision.retry_delay == dt.timedelta(seconds=30)
        assert decision.reason.startswith("out of memory (rank 0: no memory): tried again in 30 s")
        tries.begin()
        assert tries.fail(memory_error()).action is RetryAction.FAIL
        tries.clear()


def test_user_code_with_the_same_traceback_before_progress_fails_in_its_second_try():
    tries = Tries()
    error = WorkersFailedError("rank 3: ValueError")
    error.job_failure = JobFailure.of(failure(trace="Traceback\nValueError: 7"))
    tries.begin()
    first = tries.fail(error)
    assert (first.action, first.retry_delay) == (RetryAction.RETRY, None)
    tries.begin()
    second = tries.fail(error)
    assert second.action is RetryAction.FAIL
    assert "the same traceback 2 times in a row" in second.reason


def test_bad_configuration_fails_at_once_unless_its_row_says_otherwise():
    tries = Tries()
    assert tries.fail(ConfigError("wrong")).action is RetryAction.FAIL
    tries = Tries(ElasticRetryPolicy(bad_configuration=RetryRow(retries=1, delay=5)))
    tries.begin()
    assert tries.fail(ConfigError("wrong")).retry_delay == dt.timedelta(seconds=5)


def test_an_error_that_is_none_of_a_launch_is_left_to_airflow():
    tries = Tries()
    tries.begin()
    decision = tries.fail(TimeoutError("execution_timeout"))
    assert decision.action is RetryAction.DEFAULT
    assert decision.reason.startswith("TimeoutError: not a failure of a launch")
    tries.begin()  # whose end was told is not lost
    assert tries.kept[KEY]["retried"] == {}


class SilentStore(dict):
    """A store of the user's own, which fails in a way of its own."""

    def get(self, key):
        raise ConnectionError("reset by peer")

    def __setitem__(self, key, value):
        raise ConnectionError("reset by peer")


def test_a_store_of_the_users_own_that_fails_ends_no_try_and_prevents_no_decision(caplog):
    tries = Tries()
    tries.kept = SilentStore()
    tries.begin()
    decision = tries.fail(memory_error())
    assert (decision.action, decision.retry_delay) == (RetryAction.RETRY, dt.timedelta(seconds=30))
    assert [text.partition(" cannot be ")[2] for text in caplog.messages] == [
        "read; a new one begins: ConnectionError: reset by peer",
        "written: ConnectionError: reset by peer",
    ] * 2


def test_a_last_try_is_told_to_be_one():
    tries = Tries(retries=0)
    tries.begin()
    decision = tries.fail(AgentLostError("gone"))
    assert decision.action is RetryAction.FAIL
    assert "all retries of the task are used up" in decision.reason


def test_without_a_task_around_it_the_policy_still_decides():
    decision = ElasticRetryPolicy().evaluate(StoppedError("asked"), 1, 3, None)
    assert decision.action is RetryAction.RETRY


def left_by(number, **fields):
    return AgentRecord(
        launch=str(number), pid=1, mark="m", grace_period=1, task_gone=True, **fields
    )


def test_a_try_that_was_killed_counts_when_the_next_one_begins(caplog):
    tries = Tries()
    tries.begin()
    tries.begin(left_by(1, kills=2, counted_by="the group"))
    assert tries.kept[KEY]["retried"] == {"out of memory": 1}
    assert "the kernel had killed 2 for lack of memory, as the group counted" in caplog.text
    with pytest.raises(NoMoreTriesError, match="not tried again") as caught:
        tries.begin(left_by(2, kills=1, counted_by="the group"))
    assert caught.value.failure_class is FailureClass.OUT_OF_MEMORY
    assert tries.fail(caught.value).action is RetryAction.FAIL


def test_a_job_that_failed_when_its_task_was_lost_is_told_with_its_fields():
    tries = Tries(ElasticRetryPolicy(user_code=RetryRow(retries=0)))
    tries.begin()
    failed = failure()
    end = JobFailed("WorkersFailedError", "rank 3: x", False, JobFailure.of(failed))
    with pytest.raises(NoMoreTriesError, match="its job had failed: rank 3: x") as caught:
        tries.begin(left_by(1, end=end))
    assert caught.value.failure == failed


@pytest.mark.parametrize("retries", [0, 3])
def test_a_try_that_a_clear_asked_for_while_the_last_one_ran_is_never_refused(retries, caplog):
    tries = Tries(ElasticRetryPolicy(infrastructure=RetryRow(retries=0)), retries)
    caplog.set_level(logging.INFO)
    tries.begin()
    tries.clears += 1
    tries.begin()  # nobody was asked about the first: it was killed when it took too long to end
    assert "cleared while try 1 ran" in caplog.text
    tries.fail(StoppedError("asked"))
    tries.begin()
    assert tries.kept[KEY]["retried"] == ({"preemption": 1} if retries else {})


def test_a_try_that_was_cleared_and_lost_parts_the_tracebacks_before_it_from_those_after():
    tries = Tries()
    error = WorkersFailedError("rank 3: ValueError")
    error.job_failure = JobFailure.of(failure(trace="Traceback\nValueError: 7"))
    tries.begin()
    tries.fail(error)
    tries.begin()
    tries.clears += 1
    tries.begin()
    assert tries.fail(error).action is RetryAction.RETRY


def test_a_try_beyond_those_that_airflow_grants_by_itself_was_asked_for_by_a_clear():
    tries = Tries(retries=0)
    tries.begin()
    tries.begin()
    assert tries.kept[KEY]["try_number"] == 2


def test_the_same_try_may_begin_twice_as_one_that_gave_its_slot_back_does():
    tries = Tries()
    tries.begin()
    tries.number -= 1
    tries.begin()
    assert tries.kept[KEY]["retried"] == {}


def test_what_a_deleted_run_of_the_same_id_has_left_does_not_count():
    tries = Tries()
    for _ in range(2):
        tries.begin()
        tries.fail(memory_error())
    tries.number = 0
    tries.begin()
    assert tries.kept[KEY]["retried"] == {}


def test_a_record_that_cannot_be_read_is_told_and_starts_anew(caplog):
    tries = Tries()
    tries.kept[KEY] = {"version": 99}
    tries.begin()
    text = "cannot be read; a new one begins: ValueError: wanted a record of version 2"
    assert text in caplog.text
    assert tries.kept[KEY]["try_number"] == 1


# How it reaches the tasks.


def train(epochs=1): ...


KINDS = {
    "plain": lambda **more: ElasticLaunchOperator(task_id="t", entrypoint=train, **more),
    "mapped": lambda **more: ElasticLaunchOperator.partial(
        task_id="t", entrypoint=train, **more
    ).expand(op_args=[[1], [2]]),
    "gang": lambda **more: ElasticLaunchOperator.gang(
        task_id="t", nodes=2, entrypoint=train, rdzv_endpoint="etcd:2379", **more
    ),
    "decorated": lambda **more: elastic_task(task_id="t", **more)(train)(),
    "decorated_sweep": lambda **more: elastic_task(task_id="t", **more)(train).expand(
        epochs=[1, 2]
    ),
    "decorated_gang": lambda **more: elastic_task(
        **{"task_id": "t", "gang": 2, "rdzv_endpoint": "etcd:2379"} | more
    )(train)(),
}
OTHER = ElasticRetryPolicy(hang=RetryRow(retries=0))


def stored(dag):
    """``retries``, and whether there is a policy, as the scheduler reads them."""
    read = DagSerialization.from_dict(DagSerialization.to_dict(dag))
    task = read.get_task("t")
    return task.retries, task.has_retry_policy


def policy_of(dag):
    task = dag.get_task("t")
    return task.partial_kwargs.get("retry_policy") if task.is_mapped else task.retry_policy


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_task_has_three_retries_and_the_policy(kind):
    with DAG("d") as dag:
        KINDS[kind]()
    assert stored(dag) == (3, True)
    assert policy_of(dag) is DEFAULT_RETRY_POLICY


@pytest.mark.parametrize("kind", KINDS)
def test_default_args_win_over_the_defaults(kind):
    with DAG("d", default_args={"retries": 7, "retry_policy": OTHER}) as dag:
        KINDS[kind]()
    assert stored(dag) == (7, True)
    assert policy_of(dag) is OTHER


@pytest.mark.parametrize("kind", KINDS)
def test_what_the_task_says_wins_over_default_args(kind):
    with DAG("d", default_args={"retries": 7, "retry_policy": OTHER}) as dag:
        KINDS[kind](retries=0, retry_policy=None)
    assert stored(dag) == (0, False)


@pytest.mark.parametrize("kind", ["plain", "decorated", "decorated_sweep"])
def test_default_args_of_a_task_group_count_too(kind):
    with DAG("d") as dag, TaskGroup("g", default_args={"retries": 5}, prefix_group_id=False):
        KINDS[kind]()
    assert stored(dag) == (5, True)


def test_what_is_no_policy_is_refused_when_the_file_is_parsed():
    for kind in ("plain", "gang", "decorated", "decorated_gang"):
        with DAG("d"), pytest.raises(ConfigError, match="retry_policy is 3; wanted an Elastic"):
            KINDS[kind](retry_policy=3)


def test_a_mapped_instance_has_the_policy_when_it_runs():
    with DAG("d") as dag:
        KINDS["mapped"]()
        KINDS["decorated_gang"](task_id="gang", retry_policy=OTHER)
    assert dag.get_task("t").unmap({"op_args": [1]}).retry_policy is DEFAULT_RETRY_POLICY
    assert dag.get_task("gang").unmap({"op_kwargs": {}}).retry_policy is OTHER


def test_a_function_may_be_mapped_in_two_dags_with_different_defaults():
    shared = elastic_task(task_id="t")(train)
    with DAG("d") as first:
        shared.expand(epochs=[1])
    with DAG("e", default_args={"retries": 7}) as second:
        shared.expand(epochs=[1])
    assert (stored(first), stored(second)) == ((3, True), (7, True))
