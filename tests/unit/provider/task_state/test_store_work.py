"""What a task asks of its state store, request by request."""

from __future__ import annotations

import datetime as dt
import logging
import os

import pytest
from airflow.sdk.exceptions import AirflowRuntimeError, ErrorType
from airflow.sdk.execution_time.comms import ErrorResponse

from airflow_provider.task_state.orders import ANSWER, CONTROL
from airflow_provider.task_state.store_work import LOOK_PERIOD, Made, StoreWork

LOG = logging.getLogger("t")
TIME = "2026-11-29T12:00:00+00:00"


class PlayedStore:
    """A store; ``requests`` are its calls. While ``away``, each of them fails with ``error``."""

    def __init__(self):
        self.error = AirflowRuntimeError(ErrorResponse(error=ErrorType.API_SERVER_ERROR))
        self.values = {}
        self.requests = []
        self.away = False
        self.refuses = set()

    def _asked(self, *request):
        self.requests.append(request)
        if self.away:
            raise self.error

    def get(self, key):
        self._asked("get", key)
        return self.values.get(key)

    def set(self, key, value):
        self._asked("set", key)
        if key in self.refuses:
            raise ValueError(f"{key} is too large")
        self.values[key] = value

    def delete(self, key):
        self._asked("delete", key)
        self.values.pop(key, None)


@pytest.fixture
def store():
    return PlayedStore()


@pytest.fixture
def obeyed():
    return []


@pytest.fixture
def work(store, obeyed):
    noon = dt.datetime(2026, 11, 29, 12, tzinfo=dt.UTC)
    return StoreWork(store, obeyed.append, LOG, lambda: noon)


def turn(work, now):
    """Have the work do what is due at that moment. Returns when there is more to do."""
    return work.turn(lambda: now)


def run(work, start, end):
    """Have the work do all that is due from ``start`` to ``end``."""
    while start <= end:
        start = turn(work, start)
    return start


def test_an_order_is_carried_out_once_and_answered(work, store, obeyed):
    store.values[CONTROL] = {"do": "pause", "why": "lunch"}
    work.listen(0.0, on=True)
    run(work, 0.0, 20.0)
    assert [order.flag for order in obeyed] == ["pause"]
    assert CONTROL not in store.values
    assert store.values[ANSWER] == {
        "asked": {"do": "pause", "why": "lunch"},
        "taken": TIME,
        "understood": "pause",
    }
    work.tell("paused after step 12: pause was raised")
    run(work, 20.0, 21.0)
    assert store.values[ANSWER]["then"] == [f"{TIME} paused after step 12: pause was raised"]


def test_an_order_is_deleted_before_it_is_carried_out(work, store):
    """Else a task that is killed in between would have its next try carry it out again."""
    store.values[CONTROL] = "stop"
    work.listen(0.0, on=True)
    run(work, 0.0, 5.0)
    assert store.requests == [("get", CONTROL), ("delete", CONTROL), ("set", ANSWER)]


@pytest.mark.parametrize("value", ["dance", 7, {"what": "ever"}, "x" * 60_000])
def test_what_is_no_order_is_answered_and_deleted(work, store, obeyed, value):
    store.values[CONTROL] = value
    work.listen(0.0, on=True)
    run(work, 0.0, 5.0)
    assert obeyed == []
    assert CONTROL not in store.values
    assert "wanted one of 'checkpoint', 'pause'" in store.values[ANSWER]["refused"]
    assert len(str(store.values[ANSWER])) < 3000


def test_a_minute_costs_one_request_each_time_that_it_looks_and_no_other(work, store):
    work.listen(0.0, on=True)
    run(work, 0.0, 60.0)
    assert store.requests == [("get", CONTROL)] * int(60 / LOOK_PERIOD)


def test_a_node_that_does_not_listen_makes_no_request(work, store):
    assert run(work, 0.0, 60.0) == float("inf")
    work.listen(60.0, on=True)
    work.listen(60.0, on=False)
    run(work, 60.0, 120.0)
    assert store.requests == []


def test_listening_again_looks_no_sooner(work, store):
    for second in range(20):
        work.listen(float(second), on=True)
        turn(work, float(second))
    assert len(store.requests) == 3


def test_of_many_values_only_the_newest_is_written_once_a_period(work, store):
    for second in range(31):
        work.write("progress", second, period=10.0)
        turn(work, float(second))
    assert store.requests == [("set", "progress")] * 4
    assert store.values["progress"] == 30


def test_what_was_replaced_before_its_turn_is_never_written(work, store):
    work.write("state", "runs", period=1.0, not_before=2.0)
    turn(work, 1.0)
    work.write("state", "ended", period=1.0)
    work.finish(succeeded=True)
    assert store.requests == [("set", "state")]
    assert store.values["state"] == "ended"


def test_while_airflow_is_away_requests_get_rarer_and_then_all_goes_on(work, store, obeyed, caplog):
    store.away = True
    work.listen(0.0, on=True)
    work.write("state", "runs", period=1.0)
    with caplog.at_level(logging.INFO):
        run(work, 0.0, 600.0)
        assert len(store.requests) <= 13
        store.away = False
        store.values[CONTROL] = "stop"
        run(work, 601.0, 670.0)
    assert [order.word for order in obeyed] == ["stop"]
    assert store.values["state"] == "runs"
    warnings = [one for one in caplog.messages if "cannot be reached" in one]
    assert len(warnings) == 1
    assert "nobody can steer it by the key 'control' meanwhile" in warnings[0]
    assert "the task's state can be reached again" in caplog.messages


@pytest.mark.parametrize("refused", ["state", "elastic"])
def test_a_key_that_the_store_refuses_hinders_no_other_and_is_told_once(
    work, store, obeyed, caplog, refused
):
    store.refuses = {refused}
    work.listen(0.0, on=True)
    with caplog.at_level(logging.INFO):
        for second in range(120):
            for key in ("state", "progress", "elastic"):
                work.write(key, second, period=5.0)
            run(work, float(second), float(second))
        assert {
            key: store.values[key] for key in ("state", "progress", "elastic") if key != refused
        } == (dict.fromkeys({"state", "progress", "elastic"} - {refused}, 115))
        assert store.requests.count(("set", refused)) <= 13
        store.values[CONTROL] = "stop"
        run(work, 120.0, 125.0)
        work.finish(succeeded=True)
    assert [order.word for order in obeyed] == ["stop"]
    told = [text for text in caplog.messages if "is raised for all nodes" not in text]
    assert told == [
        f"the key '{refused}' of the task's state cannot be changed: ValueError: {refused} is too "
        "large. The other keys are kept up to date; this one is tried again, without a word"
    ]


def test_an_order_that_the_store_does_not_delete_hinders_no_key_and_is_told_once(
    work, store, obeyed, caplog, monkeypatch
):
    monkeypatch.setattr(store, "delete", lambda _: os.close(-1))
    store.values[CONTROL] = "stop"
    work.listen(0.0, on=True)
    for second in range(60):
        work.write("state", second, period=1.0)
        run(work, float(second), float(second))
    assert obeyed == []
    assert store.values["state"] == 59
    (told,) = caplog.messages
    assert told.startswith("the key 'control' of the task's state cannot be changed: OSError")


def test_a_key_that_is_refused_for_a_while_is_written_then(work, store):
    store.refuses = {"state"}
    work.write("state", "runs", period=1.0)
    assert run(work, 0.0, 0.0) == 10.0
    store.refuses = set()
    run(work, 10.0, 10.0)
    assert store.values["state"] == "runs"


def test_a_key_that_is_refused_at_the_end_alone_hinders_no_other_either(work, store, caplog):
    store.refuses = {"elastic"}
    for key in ("elastic", "state", "progress"):
        work.write(key, "ended", period=1.0)
    work.finish(succeeded=True)
    assert store.values == {"state": "ended", "progress": "ended"}
    assert caplog.messages == [
        "the task's state is not up to date: ValueError: elastic is too large"
    ]


def test_the_end_of_a_task_while_airflow_is_away_costs_two_requests_however_many_keys(work, store):
    store.away = True
    for key in ("elastic", "state", "progress"):
        work.write(key, "ended", period=1.0)
    work.finish(succeeded=True)
    assert store.requests == [("set", "elastic"), ("set", "state")]


def test_an_order_that_cannot_be_carried_out_now_is_refused_in_words(store):
    noon = dt.datetime(2026, 11, 29, 12, tzinfo=dt.UTC)
    work = StoreWork(store, lambda _: "no ranks run", LOG, lambda: noon)
    store.values[CONTROL] = "pause"
    work.listen(0.0, on=True)
    run(work, 0.0, 5.0)
    assert store.values == {ANSWER: {"asked": "pause", "taken": TIME, "refused": "no ranks run"}}


def test_a_store_of_the_users_own_may_fail_in_a_way_of_its_own(work, store, obeyed, caplog):
    store.error, store.away = KeyError("bucket"), True
    work.listen(0.0, on=True)
    work.write("state", "runs", period=1.0)
    work.write("elastic", Made(str, str), period=1.0)
    run(work, 0.0, 60.0)
    work.finish(succeeded=True)
    assert [text.partition(".")[0] for text in caplog.messages] == [
        "the task's state cannot be reached: KeyError: 'bucket'",
        "the task's state is not up to date: KeyError: 'bucket'",
    ]
    store.away = False
    store.values[CONTROL] = "stop"
    run(work, 120.0, 130.0)
    assert [order.word for order in obeyed] == ["stop"]
    assert store.values["state"] == "runs"


def test_an_order_that_cannot_be_passed_on_is_no_failure_of_the_store(store):
    work = StoreWork(store, lambda _: os.close(-1), LOG, lambda: dt.datetime.now(dt.UTC))
    store.values[CONTROL] = "stop"
    work.listen(0.0, on=True)
    with pytest.raises(OSError, match="Bad file descriptor"):
        turn(work, LOOK_PERIOD)


def test_an_order_that_cannot_be_deleted_is_not_carried_out_yet(work, store, obeyed):
    store.values[CONTROL] = "stop"
    get = store.get

    def get_and_go(key):
        found = get(key)
        store.away = True
        return found

    store.get = get_and_go
    work.listen(0.0, on=True)
    run(work, 0.0, 5.0)
    assert obeyed == []
    store.away, store.get = False, get
    run(work, 5.0, 30.0)
    assert [order.word for order in obeyed] == ["stop"]


@pytest.mark.parametrize("seconds", [1.0, 5.0])
def test_an_order_that_comes_too_late_is_not_left_for_a_run_after_a_clear(
    work, store, obeyed, seconds
):
    work.listen(0.0, on=True)
    run(work, 0.0, seconds)
    work.listen(seconds, on=False)
    store.values[CONTROL] = "stop"
    work.finish(succeeded=True)
    assert obeyed == []
    assert CONTROL not in store.values
    assert store.values[ANSWER] == {"asked": "stop", "taken": TIME, "refused": "the job had ended"}


def test_an_order_that_comes_between_two_tries_is_left_for_the_next(work, store):
    work.listen(0.0, on=True)
    run(work, 0.0, 5.0)
    store.values[CONTROL] = "stop"
    work.finish(succeeded=False)
    assert store.values[CONTROL] == "stop"


def test_the_end_of_a_task_while_airflow_is_away_is_no_error(work, store):
    store.away = True
    work.write("state", "ended", period=1.0)
    work.finish(succeeded=True)
    assert store.requests == [("set", "state")]


def test_only_the_last_things_that_came_of_an_order_are_told(work, store):
    store.values[CONTROL] = "pause"
    work.listen(0.0, on=True)
    run(work, 0.0, 5.0)
    for number in range(50):
        work.tell(f"thing {number}")
    work.finish(succeeded=True)
    assert store.values[ANSWER]["then"] == [f"{TIME} thing {n}" for n in range(45, 50)]


def test_what_nobody_ordered_is_no_answer(work, store):
    work.tell("the checkpoint of step 5 is committed")
    work.finish(succeeded=True)
    assert store.requests == []


def test_a_made_value_goes_on_from_what_its_key_held_which_is_read_once(work, store):
    store.values["elastic"] = 10
    read = []

    def note(value):
        read.append(value)
        return value

    for second in range(3):
        work.write("elastic", Made(note, lambda old, new=second: old + new), period=1.0)
        turn(work, float(second))
    assert store.values["elastic"] == 12
    assert read == [10]
    assert store.requests == [("get", "elastic")] + [("set", "elastic")] * 3


def test_a_value_is_only_made_when_it_is_written(work, store):
    made = []
    for second in range(31):
        work.write("elastic", Made(str, lambda _, new=second: made.append(new) or new), period=10.0)
        turn(work, float(second))
    assert made == [0, 10, 20, 30]


def test_a_value_that_cannot_be_made_is_not_written_and_orders_are_taken(work, store, obeyed):
    store.values[CONTROL] = "stop"
    work.listen(0.0, on=True)
    work.write("elastic", Made(str, lambda _: 1 / 0), period=1.0)
    run(work, 0.0, 5.0)
    assert [order.word for order in obeyed] == ["stop"]
    assert "elastic" not in store.values


def test_what_an_earlier_try_left_is_read_again_after_airflow_was_away(work, store):
    store.values["elastic"] = 10
    store.away = True
    work.write("elastic", Made(int, lambda old: old + 1), period=1.0)
    run(work, 0.0, 30.0)
    store.away = False
    run(work, 100.0, 101.0)
    assert store.values["elastic"] == 11


def test_a_key_that_is_written_more_often_from_now_on_need_not_wait_for_its_old_period(work, store):
    work.write("elastic", 1, period=320.0)
    run(work, 0.0, 10.0)
    work.write("elastic", 2, period=5.0)
    assert run(work, 10.0, 10.0) == float("inf")
    work.write("elastic", 3, period=5.0)
    assert run(work, 12.0, 12.0) == 15.0
    assert store.requests == [("set", "elastic")] * 2
