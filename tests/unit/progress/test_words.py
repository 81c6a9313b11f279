"""Progress in words."""

from __future__ import annotations

import pytest

from llutil.progress.words import Steps, metrics_text, summary


@pytest.mark.parametrize(
    ("ranks", "line"),
    [
        ({0: (3, 10)}, "progress: rank 0 3/10 (30 %)"),
        ({1: (5, 0), 0: (4, 8)}, "progress: rank 0 4/8 (50 %), rank 1 5"),
        (
            {rank: (rank + 1, 10) for rank in range(8)},
            "progress of 8 ranks: slowest rank 0 1/10 (10 %), fastest rank 7 8/10 (80 %)",
        ),
    ],
)
def test_a_few_ranks_are_listed_and_many_are_summed_up(ranks: Steps, line: str) -> None:
    assert summary(ranks) == line


def test_metrics_have_four_digits() -> None:
    assert metrics_text({"loss": 0.123456, "lr": 3e-5, "seen": 12.0}) == (
        "; loss 0.1235, lr 3e-05, seen 12"
    )
    assert metrics_text({}) == ""
