"""What ``make demo`` shows of a run."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.airflow.serverless import Outcome
from tests.demo import report

_RUN = Outcome(
    state="success",
    states={"train": "success", "compare": "success"},
    xcoms={
        "train": {
            "return_value": {
                "0": {"rank": 0, "loss": 0.25, "accuracy": 0.98},
                "1": {"rank": 1, "loss": 12.5, "accuracy": 0.97},
            }
        },
        "compare": {"return_value": 0.98},
    },
)


def test_report_has_a_row_for_each_rank_and_the_lowest_accuracy() -> None:
    text, good = report(_RUN)
    assert good
    assert text.splitlines() == [
        "What each rank of task 'train' returned:",
        "  rank     loss  accuracy",
        "     0   0.2500    0.9800",
        "     1  12.5000    0.9700",
        "",
        "Held-out accuracy: 97.0%",
        "Task 'compare': success",
        "Task 'train': success",
    ]


@pytest.mark.parametrize(
    "run",
    [
        replace(_RUN, state="failed"),
        replace(_RUN, xcoms={}),
        replace(_RUN, xcoms={"train": {"return_value": {"0": {"rank": 0}}}}),
    ],
    ids=["failed", "no ranks", "no accuracy"],
)
def test_run_that_shows_no_accuracy_or_failed_is_no_success(run: Outcome) -> None:
    assert not report(run)[1]
