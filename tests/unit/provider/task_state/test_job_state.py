"""A task's state while its job runs, by what the agent says; the store is played."""

from __future__ import annotations

import logging
import threading
import time

import pytest

from airflow_provider.task_state import store_work
from airflow_provider.task_state.elastic_note import Ended, LaunchFacts
from airflow_provider.task_state.job_state import JobState
from airflow_provider.task_state.orders import ANSWER, CONTROL
from llutil.failure import FailureClass, JobFailure
from llutil.task_link.job_events import (
    Progress,
    RoundBegan,
    Saved,
    Steered,
    Stopped,
    TimeSpent,
)
from tests.unit.provider.task_state.elastic_values import a_round, failed, failure, status

LOG = logging.getLogger("t")
SUCCESS = Ended(outcome="succeeded", succeeded=True)


class SharedStore:
    """A store that two threads use; ``hold`` keeps every request waiting."""

    def __init__(self):
        self.values = {}
        self.threads = set()
        self.hold = threading.Event()
        self.hold.set()

    def _asked(self):
        self.threads.add(threading.current_thread())
        self.hold.wait(30)

    def get(self, key):
        self._asked()
        return self.values.get(key)

    def set(self, key, value):
        self._asked()
        self.values[key] = value

    def delete(self, key):
        self._asked()
        self.values.pop(key, None)


@pytest.fixture
def store():
    made = SharedStore()
    yield made
    made.hold.set()
    for thread in made.threads:
        thread.join(10)
        assert not thread.is_alive()


@pytest.fixture
def state(store):
    return JobState(store, LOG, LaunchFacts(try_number=2, folder="/checkpoints/job"))


@pytest.fixture
def soon(monkeypatch):
    monkeypatch.setattr(store_work, "LOOK_PERIOD", 0.01)


def await_(condition):
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        threading.Event().wait(0.005)


def test_a_job_tells_people_how_it_went(state, store):
    state.begin(lambda *_: None)
    state.hear(RoundBegan(0, 2, (0, 1)))
    state.hear(Progress({0: (1, 10), 1: (1, 10)}))
    state.hear(Saved(4))
    state.hear(Progress({0: (10, 10), 1: (9, 10)}))
    state.hear(RoundBegan(0, 0, ()))
    state.end()
    state.close(SUCCESS)
    values = store.values
    assert (values["state"]["is"], values["state"]["try"]) == ("succeeded", 2)
    assert (values["progress"]["step"], values["progress"]["total"]) == (9, 10)
    assert values["checkpoint"].keys() == {"step", "folder", "time"}
    assert (values["checkpoint"]["step"], values["checkpoint"]["folder"]) == (4, "/checkpoints/job")


@pytest.mark.usefixtures("soon")
def test_an_order_reaches_the_job_and_its_end_names_who_stopped_it(state, store):
    asked = []
    store.values[CONTROL] = {"do": "stop", "why": "good enough"}
    state.begin(lambda flags, why: asked.append((flags, why)))
    state.hear(RoundBegan(0, 1, (0,)))
    await_(lambda: asked)
    said = "the key 'control' of the task's state says stop: good enough"
    assert asked == [(["stop_all_tasks"], said)]
    state.hear(Stopped(7, "stop_all_tasks was raised"))
    state.close(SUCCESS)
    told = f"was stopped after step 7: stop_all_tasks was raised ({said})"
    assert store.values["state"]["is"] == told
    assert store.values[ANSWER]["then"][-1].endswith(told)


@pytest.mark.usefixtures("soon")
def test_only_the_task_with_rank_0_listens_and_only_while_ranks_run(state, store):
    store.values[CONTROL] = "stop"
    asked = []
    state.begin(lambda *given: asked.append(given))
    state.hear(RoundBegan(0, 4, (2, 3)))
    state.hear(RoundBegan(0, 0, ()))
    state.close(Ended(outcome="failed: x"))
    assert asked == []
    assert store.values[CONTROL] == "stop"
    assert store.values["state"]["is"] == "failed: x"
    assert store.values["state"]["control"] == "taken by the task instance with rank 0"


@pytest.mark.usefixtures("soon")
def test_an_order_between_two_launches_is_left_for_the_second(state, store):
    asked = []
    state.begin(lambda *_: asked.append("first"))
    state.hear(RoundBegan(0, 1, (0,)))
    state.end()  # its agent was killed, and has not said that the round is over
    await_(lambda: not state._thread._queued and state._thread._work._next_look == float("inf"))
    store.values[CONTROL] = "stop"
    state.begin(lambda *_: asked.append("second"))
    assert not asked
    assert store.values[CONTROL] == "stop"
    state.hear(RoundBegan(0, 1, (0,)))
    await_(lambda: ANSWER in store.values)
    assert asked == ["second"]
    assert store.values[ANSWER]["understood"] == "stop"
    state.close(SUCCESS)


@pytest.mark.usefixtures("soon")
def test_an_order_that_was_read_just_before_the_job_ended_is_refused_in_words(state, store):
    get = store.get

    def get_late(key):
        found = get(key)
        if found == "stop":
            state.end()
        return found

    store.get = get_late
    asked = []
    store.values[CONTROL] = "stop"
    state.begin(lambda *given: asked.append(given))
    state.hear(RoundBegan(0, 1, (0,)))
    await_(lambda: ANSWER in store.values)
    assert asked == []
    assert store.values[ANSWER]["refused"] == "no ranks run at the moment: ask again when they do"
    state.close(Ended(outcome="failed: x"))
    assert store.values["state"]["is"] == "failed: x"


def test_a_task_that_airflow_ends_says_so_before_its_job_has_ended(state, store):
    state.begin(lambda *_: None)
    state.hear(RoundBegan(0, 1, (0,)))
    state.stop_asked("Airflow asked the task to end")
    ends = "ends: Airflow asked the task to end"
    await_(lambda: store.values.get("state", {}).get("is") == ends)
    state.close(Ended(outcome="failed: stopped"))
    assert store.values["state"]["is"] == "failed: stopped"


@pytest.mark.usefixtures("soon")
def test_a_pause_is_told_and_is_over_when_the_job_goes_on(state, store):
    state.begin(lambda *_: None)
    state.hear(RoundBegan(0, 1, (0,)))
    paused = "paused after step 3: pause was raised"
    state.hear(Steered(paused, now=paused))
    await_(lambda: "paused" in str(store.values.get("state")))
    state.hear(Steered("resumed: resume was raised", now="runs"))
    await_(lambda: store.values["state"]["is"] == "runs")
    state.close(SUCCESS)


@pytest.mark.usefixtures("soon")
def test_stacks_are_told_as_what_came_of_an_order_and_change_no_state(state, store):
    store.values[CONTROL] = "stacks"
    state.begin(lambda *_: None)
    state.hear(RoundBegan(0, 1, (0,)))
    await_(lambda: store.values.get(ANSWER) and store.values.get("state"))
    state.hear(Steered("the stacks of this node's ranks are in its log: because"))
    await_(lambda: "are in its log" in str(store.values[ANSWER]))
    assert store.values["state"]["is"] == "runs"
    state.close(SUCCESS)


@pytest.mark.usefixtures("soon")
def test_a_checkpoint_that_is_told_again_at_the_end_is_no_news(state, store):
    store.values[CONTROL] = "checkpoint"
    state.begin(lambda *_: None)
    state.hear(RoundBegan(0, 1, (0,)))
    await_(lambda: store.values.get(ANSWER))
    state.hear(Saved(7))
    state.hear(Saved(7, path="/c/step-7"))
    state.close(SUCCESS)
    assert str(store.values[ANSWER]["then"]).count("the checkpoint of step 7") == 1


def test_the_relaying_thread_never_waits_for_airflow(state, store):
    store.hold.clear()
    began = time.monotonic()
    state.begin(lambda *_: None)
    state.hear(RoundBegan(0, 1, (0,)))
    for step in range(1000):
        state.hear(Progress({0: (step, 0)}))
        state.hear(Saved(step))
        state.hear(Steered("x"))
    state.end()
    assert time.monotonic() - began < 25
    assert threading.current_thread() not in store.threads
    store.hold.set()
    state.close(SUCCESS)


def test_memory_does_not_grow_while_airflow_hangs(state, store):
    """Every message of a week comes while one request waits for its answer."""
    store.hold.clear()
    state.begin(lambda *_: None)
    for number in range(2000):
        for event in (*a_round(number + 1), Saved(number), Steered("x"), failed(1)):
            state.hear(event)
    waiting = state._thread._asked.qsize()
    assert waiting < 1010
    store.hold.set()
    state.close(SUCCESS)
    assert store.values["elastic"]["rounds"][-1]["first_step"] == 2000
    assert store.values["elastic"]["succeeded"]


def test_a_task_tells_its_whole_story_under_one_key(state, store):
    state.begin(lambda *_: None)
    for event in (*a_round(1, 2), Saved(2), RoundBegan(0, 0, ()), failed(1), *a_round(3)):
        state.hear(event)
    state.hear(TimeSpent(60.0, 0.9, 1, "1 min, 90 % training"))
    state.end()
    report = "train failed: rank 1\nTraceback"
    state.close(Ended(outcome="failed: train failed: rank 1", failure=failure(1), report=report))
    value = store.values["elastic"]
    assert (value["doing"], value["succeeded"], value["try"]) == ("ended", False, 2)
    assert value["outcome"] == "failed: train failed: rank 1"
    assert value["failure"]["report"] == report
    assert [one["end"] for one in value["rounds"]] == ["failure", "lost"]
    assert value["account"]["text"] == "1 min, 90 % training"
    assert value["checkpoints"]["committed"][0]["step"] == 2
    assert value["every"] == 5.0


def test_a_next_try_goes_on_and_what_nobody_can_read_costs_a_line(store, caplog):
    for try_number, before in ((1, None), (2, None), (3, {"version": 99})):
        if before is not None:
            store.values["elastic"] = before
        state = JobState(store, LOG, LaunchFacts(try_number=try_number))
        state.begin(lambda *_: None)
        for event in a_round(1):
            state.hear(event)
        state.close(SUCCESS)
        tries = [one["try"] for one in store.values["elastic"]["rounds"]]
        assert tries == {1: [1], 2: [1, 2], 3: [3]}[try_number]
    (told,) = caplog.messages
    assert "the key 'elastic' of the task's state begins afresh" in told
    assert "its version is 99; wanted 1" in told


def test_a_task_that_only_waited_for_others_says_so_and_that_it_failed(state, store):
    state.begin(lambda *_: None)
    state.hear(status())
    state.end()
    state.close(Ended(outcome="failed: no nodes", failure=JobFailure(why="no nodes")))
    assert store.values.keys() == {"elastic"}
    assert store.values["elastic"]["failure"]["why"] == "no nodes"


def test_a_failure_before_any_agent_ran_is_told_and_what_was_told_before_is_kept(state, store):
    store.values["elastic"] = {
        "version": 1,
        "time": "2026-11-30T12:00:00+00:00",
        "rounds": [{"try": 1, "began": "2026-11-30T11:00:00+00:00", "round": 7}],
        "failure": None,
    }
    failed = JobFailure(why="rank 1: boom", failure_class=FailureClass.USER_CODE)
    state.close(Ended(outcome="failed: not tried again", failure=failed, report="not tried again"))
    note = store.values["elastic"]
    assert store.values.keys() == {"elastic"}
    assert (note["try"], note["doing"], note["succeeded"]) == (2, "ended", False)
    assert (note["failure"]["class"], note["failure"]["why"]) == ("user code", "rank 1: boom")
    assert [one["round"] for one in note["rounds"]] == [7]


@pytest.mark.parametrize(
    ("ended", "doing"),
    [
        (Ended(outcome="failed: no nodes"), "ended"),
        (Ended(outcome="waits for its siblings, without a slot", goes_on=True), "waits"),
        (SUCCESS, "ended"),
    ],
)
def test_a_try_in_which_no_worker_ran_tells_its_end(state, store, ended, doing):
    state.close(ended)
    note = store.values["elastic"]
    assert store.values.keys() == {"elastic"}
    assert (note["try"], note["doing"], note["outcome"]) == (2, doing, ended.outcome)
    for name in ("nodes", "world_size", "restarts", "max_restarts", "seconds"):
        assert note[name] is None  # nobody has told it


def test_the_end_of_a_task_waits_for_airflow_for_a_while_only(state, store, monkeypatch, caplog):
    monkeypatch.setattr("airflow_provider.task_state.job_state._LEAVE_WITHIN", 0.05)
    store.hold.clear()
    state.begin(lambda *_: None)
    state.hear(RoundBegan(0, 1, (0,)))
    state.close(SUCCESS)
    assert "Airflow takes more than 0.05 s to keep the task's state" in caplog.text


@pytest.mark.usefixtures("soon")
def test_a_request_that_takes_long_and_fails_is_followed_by_a_pause(state, store, monkeypatch):
    for name in ("_FIRST_PAUSE", "_LONGEST_PAUSE"):
        monkeypatch.setattr(store_work, name, 0.1)
    began, ended, never = [], [], threading.Event()

    def fail_late(_key):
        store.threads.add(threading.current_thread())
        began.append(time.monotonic())
        never.wait(0.3)  # longer than the pause
        ended.append(time.monotonic())
        raise ConnectionError("it takes too long")

    monkeypatch.setattr(store, "get", fail_late)
    state.begin(lambda *_: None)
    state.hear(RoundBegan(0, 1, (0,)))
    await_(lambda: len(began) > 3)
    state.close(SUCCESS)
    pauses = [after - before for before, after in zip(ended, began[1:], strict=False)]
    assert min(pauses[:3]) >= 0.1


@pytest.mark.usefixtures("soon")
def test_what_nobody_foresaw_ends_the_steering_and_not_the_job(state, store, caplog):
    store.values[CONTROL] = "stop"
    state.begin(lambda *_: 1 / 0)
    state.hear(RoundBegan(0, 1, (0,)))
    await_(lambda: "nobody can steer the job" in caplog.text)
    state.close(SUCCESS)


def test_the_next_launch_of_a_try_has_no_account_yet(state, store):
    for _ in range(2):
        state.begin(lambda *_: None)
        for event in a_round(1):
            state.hear(event)
        state.hear(TimeSpent(60.0, 0.9, 0, "1 min"))
        state.end()
    state.begin(lambda *_: None)
    state.hear(status(1, 1))
    state.close(SUCCESS)
    assert store.values["elastic"]["account"] is None
    assert len(store.values["elastic"]["rounds"]) == 2


def test_a_launch_that_is_repeated_under_an_id_of_its_own_tells_that_id(store):
    state = JobState(store, LOG, LaunchFacts(try_number=1, run_id="r.1"))
    for attempt in (1, 2):
        state.begin(lambda *_: None)
        state.hear(RoundBegan(0, 1, (0,)))
        state.hear(status(1, run_id=f"r.{attempt}"))
        state.end()
    state.close(SUCCESS)
    assert store.values["elastic"]["run_id"] == "r.2"


def test_the_words_for_people_show_no_secret_either(store):
    facts = LaunchFacts(try_number=1)
    state = JobState(store, LOG, facts, hide=lambda text: text.replace("hunter2", "***"))
    state.begin(lambda *_: None)
    state.hear(RoundBegan(0, 1, (0,)))
    state.close(Ended(outcome="failed: etcd://root:other@host refuses hunter2\x00"))
    assert store.values["state"]["is"] == "failed: etcd://***@host refuses ***\\x00"


@pytest.mark.usefixtures("soon")
def test_neither_the_place_of_checkpoints_nor_an_answer_shows_a_secret(store):
    facts = LaunchFacts(try_number=1, folder="s3://key:other@bucket/hunter2/job")
    state = JobState(store, LOG, facts, hide=lambda text: text.replace("hunter2", "***"))
    asked = threading.Event()
    store.values[CONTROL] = "checkpoint"
    state.begin(lambda *_: asked.set())
    state.hear(RoundBegan(0, 1, (0,)))
    assert asked.wait(20)
    await_(lambda: ANSWER in store.values)
    state.hear(Saved(4))
    state.hear(Steered("no checkpoint: s3://key:other@bucket refuses hunter2"))
    state.close(SUCCESS)
    assert store.values["checkpoint"]["folder"] == "s3://***@bucket/***/job"
    told = "no checkpoint: s3://***@bucket refuses ***"
    assert store.values[ANSWER]["then"][-1].endswith(told)


def test_a_job_that_was_stopped_and_whose_values_are_lost_says_that_it_failed(state, store):
    state.begin(lambda *_: None)
    for event in a_round(1):
        state.hear(event)
    state.hear(RoundBegan(0, 1, (0,)))
    state.hear(Stopped(7, "stop_all_tasks was raised"))
    state.close(Ended(outcome="failed: rank 0: a value is lost"))
    assert store.values["state"]["is"] == "failed: rank 0: a value is lost"
    assert store.values["elastic"]["outcome"] == "failed: rank 0: a value is lost"


def test_a_host_that_gives_no_thread_ends_no_job_and_one_that_gives_it_later_is_used(
    state, store, monkeypatch, caplog
):
    def refuse(_thread):
        raise RuntimeError("can't start new thread")

    state.begin(lambda *_: None)
    with monkeypatch.context() as patches:
        patches.setattr(threading.Thread, "start", refuse)
        state.hear(RoundBegan(0, 1, (0,)))
        state.hear(Saved(4))
        state.hear(Saved(5))
    assert caplog.text.count("the task's state is not kept") == 1
    state.hear(Saved(6))
    state.close(SUCCESS)
    assert store.values["checkpoint"]["step"] == 6
    assert store.values["state"]["is"] == "succeeded"


def test_the_end_of_a_task_waits_for_no_thread_that_could_not_start(
    state, store, monkeypatch, caplog
):
    def refuse(_thread):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    state.begin(lambda *_: None)
    state.hear(RoundBegan(0, 1, (0,)))
    state.close(SUCCESS)
    assert "Airflow takes more than" not in caplog.text
    assert store.values == {}
