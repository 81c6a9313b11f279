"""How the log of a task shows the error of its job."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator

import pytest
import structlog

from airflow_provider.execution.log_by_text import log_by_text
from llutil.errors import WorkersFailedError


@pytest.fixture
def written() -> Iterator[io.BytesIO]:
    """What structlog writes, with errors as Airflow's log of a task has them."""
    before = structlog.get_config()
    found = io.BytesIO()
    errors = structlog.tracebacks.ExceptionDictTransformer(use_rich=False, show_locals=False)
    structlog.configure(
        processors=[
            structlog.processors.ExceptionRenderer(errors),
            structlog.processors.JSONRenderer(),
        ],
        logger_factory=lambda *_: structlog.PrintLogger(
            io.TextIOWrapper(found, write_through=True)
        ),
        wrapper_class=structlog.make_filtering_bound_logger(0),
        cache_logger_on_first_use=True,
    )
    yield found
    structlog.configure(**before)


def _raised(error: Exception) -> None:
    try:
        raise OSError("the cause")
    except OSError as cause:
        raise error from cause


def test_the_error_of_a_job_is_logged_as_its_text_and_any_other_with_its_frames(
    written: io.BytesIO,
) -> None:
    log = structlog.get_logger().bind(logger="task")
    report = WorkersFailedError("train failed: rank 1\n  the report")
    for _ in range(2):  # in one process, tests and ``dag.test()`` run several tasks
        log_by_text(report)
    try:
        raise report
    except WorkersFailedError:
        log.exception("Task failed with exception")
    try:
        _raised(ValueError("a fault of this package"))
    except ValueError:
        log.exception("Task failed with exception")
    first, second = (json.loads(line)["exception"] for line in written.getvalue().splitlines())
    assert [one["exc_value"] for one in first] == ["train failed: rank 1\n  the report"]
    assert not first[0]["frames"]
    assert [one["exc_value"] for one in second] == ["a fault of this package", "the cause"]
    assert all(one["frames"] for one in second)
