"""The spans of a job, as OpenTelemetry's SDK exports them."""

from __future__ import annotations

import logging

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from airflow_provider.telemetry.job_spans import JobSpans
from llutil.agent_socket.round_end import RoundEnd, RoundEndKind
from llutil.task_link.job_events import Measured, RoundBegan, RoundEnded, Saved
from tests.unit.provider.task_state.elastic_values import status

LOG = logging.getLogger("spans")


@pytest.fixture
def exported(monkeypatch):
    """What is exported."""
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "get_tracer", provider.get_tracer)
    return exporter


def test_a_launch_has_a_span_and_each_round_one_below_it(exported):
    told = JobSpans(LOG)
    with trace.get_tracer("airflow").start_as_current_span("worker.train"):
        told.begin(lambda _flags, _why: None)
        for event in (
            Measured("rendezvous", 2.0),
            RoundBegan(0, 4, (0, 1)),
            Saved(7),
            RoundBegan(0, 0, ()),
            Saved(7, path="/c/step-7"),  # told again, at the end of a job
            RoundEnded(RoundEnd(kind=RoundEndKind.FAILURE)),
            RoundEnded(RoundEnd(kind=RoundEndKind.FAILURE, why="rank 1: x")),
            RoundBegan(1, 2, (0, 1)),
            RoundEnded(RoundEnd(kind=RoundEndKind.SUCCESS)),
        ):
            told.hear(event)
        told.end()
    spans = exported.get_finished_spans()
    rendezvous, first, second, launch, task = spans
    assert [span.name.rpartition(".")[2] for span in spans] == [
        "rendezvous", "round", "round", "launch", "train",
    ]  # fmt: skip
    assert launch.parent.span_id == task.context.span_id
    assert {span.parent.span_id for span in (rendezvous, first, second)} == {launch.context.span_id}
    assert rendezvous.end_time - rendezvous.start_time == 2_000_000_000
    assert first.status.status_code is StatusCode.ERROR
    assert dict(first.attributes) == {
        "elastic_launch.restarts": 0,
        "elastic_launch.world_size": 4,
        "elastic_launch.ranks": "0,1",
        "elastic_launch.end": "failure",
        "elastic_launch.why": "rank 1: x",
    }
    assert [(event.name, dict(event.attributes)) for event in first.events] == [
        ("checkpoint", {"elastic_launch.step": 7})
    ]
    assert second.attributes["elastic_launch.end"] == "success"
    assert first.end_time <= second.start_time


def test_a_launch_has_the_run_id_that_its_agent_tells(exported):
    told = JobSpans(LOG)
    for attempt in (1, 2):
        told.begin(lambda _flags, _why: None)
        told.hear(status(run_id=f"r.{attempt}"))
        told.hear(status(1, run_id=f"r.{attempt}"))
        told.end()
    launches = exported.get_finished_spans()
    assert [dict(launch.attributes) for launch in launches] == [
        {"elastic_launch.run_id": "r.1"},
        {"elastic_launch.run_id": "r.2"},
    ]


def test_a_round_that_nobody_ended_ends_with_its_agent(exported):
    told = JobSpans(LOG)
    told.begin(lambda _flags, _why: None)
    told.hear(RoundBegan(0, 4, (0, 1)))
    told.end()
    told.end()
    assert [span.name for span in exported.get_finished_spans()] == [
        "elastic_launch.round",
        "elastic_launch.launch",
    ]


class FailingProcessor(SpanProcessor):
    """A deployment's own; it fails for spans of this name, when they begin or when they end."""

    def __init__(self, name, when):
        self._failing = (name, when)

    def _fail(self, span, when):
        if self._failing == (span.name.rpartition(".")[2], when):
            raise OSError("no route to host")

    def on_start(self, span, parent_context=None):
        self._fail(span, "start")

    def on_end(self, span):
        self._fail(span, "end")


@pytest.mark.parametrize("when", ["start", "end"])
@pytest.mark.parametrize("name", ["launch", "rendezvous", "round"])
def test_a_processor_that_fails_costs_the_job_nothing_and_other_spans_are_there(
    monkeypatch, caplog, name, when
):
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    provider.add_span_processor(FailingProcessor(name, when))
    monkeypatch.setattr(trace, "get_tracer", provider.get_tracer)
    told = JobSpans(LOG)
    told.begin(lambda _flags, _why: None)
    for restart in range(2):
        told.hear(Measured("rendezvous", 2.0))
        told.hear(RoundBegan(restart, 2, (0, 1)))
        told.hear(Saved(7))
        told.hear(RoundEnded(RoundEnd(kind=RoundEndKind.FAILURE, why="rank 1: x")))
    told.end()
    names = [span.name.rpartition(".")[2] for span in exporter.get_finished_spans()]
    wanted = ["rendezvous", "rendezvous", "round", "round", "launch"]
    assert sorted(names) == sorted(one for one in wanted if when == "end" or one != name)
    assert caplog.messages == [
        "OpenTelemetry does not take all spans of the job: OSError: no route to host"
    ]


def test_a_tracer_that_cannot_be_had_costs_the_job_nothing(monkeypatch, caplog):
    monkeypatch.setattr(trace, "get_tracer", lambda _: 1 / 0)
    told = JobSpans(LOG)
    told.begin(lambda _flags, _why: None)
    told.hear(RoundBegan(0, 2, (0, 1)))
    told.end()
    assert len(caplog.messages) == 1
