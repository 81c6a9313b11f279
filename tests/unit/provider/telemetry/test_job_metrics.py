"""A job's metrics, as they come to a backend of Airflow's metrics."""

from __future__ import annotations

import logging
from types import SimpleNamespace

import pytest
from airflow.sdk._shared.observability.metrics import stats
from opentelemetry import metrics

from airflow_provider.telemetry.job_metrics import JobMetrics
from llutil.agent_socket.round_end import RoundEnd, RoundEndKind
from llutil.errors import StoppedError
from llutil.failure import Failure, FailureClass, JobFailure
from llutil.task_link.job_events import Measured, RoundBegan, RoundEnded, Saved, TimeSpent

TAGS = {"dag_id": "d", "task_id": "t", "team_name": "red"}
TI = SimpleNamespace(dag_id="d", task_id="t", stats_tags=TAGS)


class Backend:
    """What Airflow's metrics go to."""

    def __init__(self):
        self.got = []

    def incr(self, stat, count=1, *, tags):
        self.got.append((stat, count, tags))

    timing = gauge = incr

    def take(self):
        """What has come since the last time, without Airflow's own tags."""
        assert all(tags.items() >= TAGS.items() for _, _, tags in self.got)
        taken = [(stat, value, tags.get("class")) for stat, value, tags in self.got]
        self.got.clear()
        return taken


@pytest.fixture
def backend(monkeypatch):
    found = Backend()
    monkeypatch.setattr(stats, "_backend", found)
    return found


@pytest.fixture
def told(backend):
    """The metrics of a job of 4 ranks, of which this node has 0 and 1; one launch has begun."""
    found = JobMetrics(TI, logging.getLogger())
    found.begin(lambda _flags, _why: None)
    found.hear(RoundBegan(0, 4, (0, 1)))
    assert backend.take() == [("elastic_launch.launches", 1, None)]
    return found


def ended(kind, failure_class=None, *, echo=False):
    if failure_class is None:
        return RoundEnded(RoundEnd(kind=kind))
    failure = Failure(
        rank=1, local_rank=1, pid=7, exit_status=1, failure_class=failure_class, reason="x",
        echo=echo,
    )  # fmt: skip
    return RoundEnded(RoundEnd(kind=kind, failure=JobFailure.of(failure)))


def again(restart, *ranks):
    return [RoundBegan(restart - 1, 0, ()), RoundBegan(restart, 4, ranks)]


@pytest.mark.parametrize("what", ["launch", "rendezvous", "restart"])
def test_times_are_in_milliseconds(told, backend, what):
    told.hear(Measured(what, 1.5))
    assert backend.take() == [(f"elastic_launch.{what}.duration", 1500.0, None)]


@pytest.mark.parametrize(
    ("end", "ranks", "name"),
    [
        (ended(RoundEndKind.FAILURE, FailureClass.OUT_OF_MEMORY), (0, 1), "out_of_memory"),
        (ended(RoundEndKind.FAILURE, FailureClass.HANG), (2, 3), "hang"),
        (ended(RoundEndKind.LOST), (0, 1), "lost_node"),
        (ended(RoundEndKind.MEMBERSHIP), (0, 1), "membership"),
    ],
)
def test_a_restart_is_counted_by_what_ended_the_round(told, backend, end, ranks, name):
    told.hear(end)
    assert backend.take() == []
    for event in again(1, *ranks):
        told.hear(event)
    assert backend.take() == [("elastic_launch.restarts", 1, name)]


@pytest.mark.parametrize(
    ("end", "ranks"),
    [
        pytest.param(ended(RoundEndKind.FAILURE), (0, 1), id="failed on another node"),
        pytest.param(
            ended(RoundEndKind.FAILURE, FailureClass.USER_CODE, echo=True), (0, 1), id="an echo"
        ),
        pytest.param(ended(RoundEndKind.LOST), (2, 3), id="told by the node with rank 0"),
    ],
)
def test_no_restart_is_counted_twice(told, backend, end, ranks):
    told.hear(RoundBegan(0, 4, ranks))
    told.hear(end)
    for event in again(1, *ranks):
        told.hear(event)
    assert backend.take() == []


def test_what_is_learned_later_of_a_rounds_end_counts(told, backend):
    told.hear(ended(RoundEndKind.FAILURE))
    told.hear(ended(RoundEndKind.FAILURE, FailureClass.USER_CODE))
    told.hear(ended(RoundEndKind.LOST))
    for event in again(1, 0, 1):
        told.hear(event)
    assert backend.take() == [("elastic_launch.restarts", 1, "user_code")]


def test_the_node_with_rank_0_tells_of_checkpoints_and_of_the_share_of_training(told, backend):
    events = [Saved(7, 2.5), Saved(9), TimeSpent(60.0, 0.94, 2, "1 min, 94 % training")]
    for event in events:
        told.hear(event)
    assert backend.take() == [
        ("elastic_launch.checkpoint.duration", 2500.0, None),
        ("elastic_launch.training_share", 0.94, None),
    ]
    told.hear(RoundBegan(1, 4, (2, 3)))
    for event in events:
        told.hear(event)
    assert backend.take() == []


def test_a_failure_is_counted_by_its_class_and_sent_before_the_process_ends(
    told, backend, monkeypatch
):
    flushed = []
    provider = SimpleNamespace(force_flush=lambda **given: flushed.append(given))
    monkeypatch.setattr(metrics, "get_meter_provider", lambda: provider)
    with pytest.raises(StoppedError), told.outcome_told():
        raise StoppedError("Airflow asked the task to end")
    assert backend.take() == [("elastic_launch.failures", 1, "preemption")]
    assert flushed == [{"timeout_millis": 2000.0}]


def test_a_backend_that_fails_costs_the_job_nothing(caplog, monkeypatch):
    def fail(*_args, **_kwargs):
        raise OSError("no route to host")

    monkeypatch.setattr(stats, "_backend", SimpleNamespace(incr=fail, timing=fail))
    found = JobMetrics(TI, logging.getLogger())
    found.begin(lambda _flags, _why: None)
    found.hear(Measured("launch", 1.5))
    assert caplog.text.count("no route to host") == 1


def test_a_provider_that_cannot_be_had_costs_the_job_nothing(told, caplog, monkeypatch):
    monkeypatch.setattr(metrics, "get_meter_provider", lambda: 1 / 0)
    with told.outcome_told():
        told.begin(lambda _flags, _why: None)
    assert caplog.text.count("ZeroDivisionError") == 1
