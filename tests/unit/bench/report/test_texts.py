"""README and docs state no figure but those of the report, and its page and plots are made from
it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.bench.report.charts import charts
from tests.bench.report.document import ROOT, Document
from tests.bench.report.page import PAGE, page
from tests.bench.report.texts import filled, texts, unmarked

_LIMITS = {
    "most 8 requests a second, 6 at a time": (
        "airflow_provider/plugins/page/main.js",
        "const A_SECOND = 8;",
    ),
}
"""Constants that look like measured figures: where each is set, and how."""
_FILES = [path.relative_to(ROOT).as_posix() for path in texts()]


@pytest.fixture(scope="module")
def report() -> Document:
    return Document.load()


@pytest.mark.parametrize("file", _FILES)
def test_each_figure_between_markers_is_the_reports(file: str, report: Document) -> None:
    text = Path(ROOT, file).read_text()
    assert text == filled(text, report), "run: python -m tests.bench --write"


@pytest.mark.parametrize("file", _FILES)
def test_no_measured_figure_stands_outside_of_markers(file: str) -> None:
    stated = list(unmarked(Path(ROOT, file).read_text()))
    assert not [line for line in stated if not any(limit in line for limit in _LIMITS)]


@pytest.mark.parametrize("limit", _LIMITS)
def test_each_limit_that_looks_like_one_is_what_the_code_says(limit: str) -> None:
    file, line = _LIMITS[limit]
    assert line in Path(ROOT, file).read_text()
    assert any(limit in path.read_text() for path in texts()), "nobody states it any more"


def test_the_page_is_made_from_the_report(report: Document) -> None:
    shown = {file: chart.shows for file, chart in charts(report).items()}
    assert PAGE.read_text() == page(report, shown), "run: python -m tests.bench --write"


def test_the_plots_are_drawn_from_the_report(report: Document) -> None:
    found = charts(report)
    assert found
    for file, chart in found.items():
        assert chart.digest in PAGE.with_name(file).read_text(), f"{file} shows other figures"


@pytest.mark.parametrize(
    "line",
    [
        "It is 4.5x faster.",
        "A step costs 0.35 microseconds.",
        "after 30 ms",
        "30.8 → 1.07",
        "prints 100,000 lines a second",
    ],
)
def test_a_figure_without_a_source_is_seen(line: str) -> None:
    assert list(unmarked(f"Words.\n{line}\nMore words.\n")) == [line]


@pytest.mark.parametrize(
    "text",
    [
        "after `30 ms`",
        "<!-- report: launch.first.1 -->30 ms<!-- /report -->",
        "```\ntook 30 ms\n```\n",
        "within 30 s",
    ],
)
def test_examples_and_marked_figures_are_no_such_figures(text: str) -> None:
    assert not list(unmarked(text))
