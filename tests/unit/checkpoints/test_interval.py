"""What an interval between two checkpoints may be."""

from __future__ import annotations

from datetime import timedelta

import pytest

from llutil.checkpoints.interval import interval


@pytest.mark.parametrize(
    ("given", "found"),
    [
        (100, 100),
        ("12", 12),
        (" 300 ", 300),
        ("90s", timedelta(seconds=90)),
        ("1.5 min", timedelta(seconds=90)),
        ("2h", timedelta(hours=2)),
    ],
)
def test_a_number_means_steps_as_text_too_and_a_unit_means_time(
    given: object, found: object
) -> None:
    assert interval(given) == found


@pytest.mark.parametrize(
    "given", [0, -1, True, 1.5, None, "", "00", "0h", "10 parsecs", "5m", "\u0661", "1e9s"]
)
def test_what_is_neither_is_named(given: object) -> None:
    with pytest.raises(ValueError, match="wanted a whole number of steps, or a time such as"):
        interval(given)
