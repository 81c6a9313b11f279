"""A figure knows how it stands beside its peer, and whether it is what it was to be."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.bench.report.measurement import Goal, Measurement, Sample
from tests.bench.report.words import amount, progress, spread

_ONE = Measurement(
    name="first",
    what="a launch",
    unit="s",
    ours=Sample.of([0.3, 0.1, 0.2]),
    peer=Sample.of([1.0, 4.0]),
    peer_name="torch",
)


def test_the_median_stands_for_a_sample() -> None:
    assert Sample.of([3, 1, 2]) == Sample(n=3, least=1, median=2, most=3)


def test_a_sample_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="no values"):
        Sample.of([])


def test_the_ratio_says_how_many_times_faster_ours_is() -> None:
    assert _ONE.ratio == pytest.approx(12.5)
    assert replace(_ONE, peer=None).ratio is None


@pytest.mark.parametrize(
    ("goal", "is_met"),
    [
        (None, None),
        (Goal("ratio", 12), True),
        (Goal("ratio", 13), False),
        (Goal("ours", 0.2), True),
        (Goal("ours", 0.19), False),
        (Goal("difference", -2.3), True),
        (Goal("difference", -2.31), False),
    ],
)
def test_a_goal_is_met_or_not(goal: Goal | None, is_met: bool | None) -> None:
    assert replace(_ONE, goal=goal).is_met is is_met


@pytest.mark.parametrize(
    ("value", "unit", "wanted"),
    [
        (30.81, "s", "30.8 s"),
        (1.071, "s", "1.07 s"),
        (0.0463, "s", "46.3 ms"),
        (3.5e-7, "s", "350 ns"),
        (0.0, "s", "0 s"),
        (4.0, "requests", "4 requests"),
        (1.6, "%", "1.60 %"),
    ],
)
def test_amounts_have_three_digits_and_a_unit(value: float, unit: str, wanted: str) -> None:
    assert amount(value, unit) == wanted


def test_a_spread_has_one_unit() -> None:
    assert spread(Sample.of([6.9e-7, 7.6e-7, 1.1e-6]), "s") == "760 ns (690 to 1,100)"


def test_a_line_of_progress_says_it_all() -> None:
    said = progress("launch", replace(_ONE, goal=Goal("ratio", 13)))
    assert said == (
        "launch.first: torch 2.50 s (1.00 to 4.00) → 200 ms (100 to 300)  12x  goal 13x: missed"
    )
