"""What stands between markers is made from their names."""

from __future__ import annotations

import pytest

from tests.bench.report.markers import MarkerError, fill, without_marked

_MADE = {"a.b": "3 ms", "tables": "| a |\n|---|"}


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("no marker", "no marker"),
        (
            "takes <!-- report: a.b -->old<!-- /report --> or less",
            "takes <!-- report: a.b -->3 ms<!-- /report --> or less",
        ),
        (
            "| <!-- report: a.b --><!-- /report --> |",
            "| <!-- report: a.b -->3 ms<!-- /report --> |",
        ),
        (
            "<!-- report: tables -->\nold\n<!-- /report -->\n",
            "<!-- report: tables -->\n\n| a |\n|---|\n\n<!-- /report -->\n",
        ),
    ],
)
def test_the_report_fills_what_is_between(text: str, wanted: str) -> None:
    assert fill(text, _MADE.__getitem__) == wanted
    assert fill(wanted, _MADE.__getitem__) == wanted


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a <!-- report: a.b -->3 ms\n", "has no other end"),
        ("3 ms<!-- /report -->", "has no other end"),
        ("<!-- report: a.b -->3 ms<!-- /report --> more", "begins a line"),
        ("* <!-- report: a.b -->3 ms<!-- /report --> more", "begins a line"),
        ("a <!-- report: tables -->b<!-- /report -->", "on a line of its own"),
        ("<!-- report: a.b -->\n3 ms\n<!-- /report -->", "within a line"),
    ],
)
def test_markers_that_would_not_do_are_named(text: str, words: str) -> None:
    with pytest.raises(MarkerError, match=words):
        fill(text, _MADE.__getitem__)


def test_a_name_without_a_source_is_an_error() -> None:
    with pytest.raises(KeyError):
        fill("a <!-- report: c.d -->3 ms<!-- /report -->", _MADE.__getitem__)


def test_a_text_without_what_is_marked() -> None:
    assert without_marked("a <!-- report: a.b -->3 ms<!-- /report --> c") == "a  c"
