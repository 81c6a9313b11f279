"""What went wrong is one value, and a newer column of it changes nothing for older records."""

from __future__ import annotations

import json
from dataclasses import MISSING, fields

import pytest

from llutil.failure import _COLUMNS, Failure, JobFailure, first_failure
from llutil.rendezvous.protocol.record_codec import decode, encode
from llutil.rendezvous.protocol.records import Report, ReportKind
from llutil.task_link.messages import JobFailed, from_json, to_json
from tests.support.rendezvous_values import failure, job_failure, report

FULL = failure(trace="Traceback", tail=("bye",), echo=True, label="gang-1", restart=1, step=7)
NEEDED = {one.name for one in fields(Failure) if one.default is MISSING}
NEWER = [one for one in fields(Failure) if one.default is not MISSING]


def test_a_new_column_needs_a_default() -> None:
    assert {"rank", "local_rank", "pid", "exit_status", "failure_class", "reason"} == NEEDED


@pytest.mark.parametrize("column", [one.name for one in NEWER])
def test_a_record_without_a_newer_column_is_read(column: str) -> None:
    body = json.loads(encode(report("a", ReportKind.FAILED, job_failure=JobFailure.of(FULL))))
    del body["job_failure"]["failure"][column]
    told = decode("key", json.dumps(body).encode())
    assert isinstance(told, Report)
    assert told.job_failure == JobFailure.of(_without(column))


@pytest.mark.parametrize("column", [one.name for one in NEWER])
def test_a_message_without_a_newer_column_is_read(column: str) -> None:
    body = json.loads(json.dumps(to_json(JobFailed("X", "x", False, JobFailure.of(FULL)))))
    del body["job_failure"]["failure"][column]
    found = from_json(body)
    assert isinstance(found, JobFailed)
    assert found.job_failure == JobFailure.of(_without(column))


def _without(column: str) -> Failure:
    (default,) = [one.default for one in NEWER if one.name == column]
    return failure(**{one.name: getattr(FULL, one.name) for one in NEWER} | {column: default})


def test_a_report_has_a_line_for_each_column_of_the_table() -> None:
    for label, name in _COLUMNS.items():
        assert f"  {label}: {getattr(FULL, name)}" in FULL.lines


@pytest.mark.parametrize(
    ("told", "first"),
    [
        ([job_failure("a"), job_failure("b")], 0),
        ([job_failure("a", echo=True), job_failure("b")], 1),
        ([job_failure("a", echo=True), job_failure("b", echo=True)], 0),
        ([job_failure("a"), job_failure("b", fatal=True)], 1),
        ([job_failure("a"), job_failure("b", fatal=True, echo=True)], 1),
        ([], None),
    ],
    ids=["the order", "an echo", "only echoes", "fatal", "a fatal echo", "none"],
)
def test_the_failure_that_counts_is_the_first_that_is_no_echo_unless_one_is_fatal(
    told: list[JobFailure], first: int | None
) -> None:
    assert first_failure(told, lambda one: one) is (None if first is None else told[first])
