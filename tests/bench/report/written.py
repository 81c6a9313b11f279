"""Writes the report's page and its plots beside ``report.json``."""

from __future__ import annotations

import sys

from tests.bench.report.charts import charts
from tests.bench.report.document import Document
from tests.bench.report.drawing import draw
from tests.bench.report.page import PAGE, page

__all__ = ["write_report"]


def write_report(report: Document) -> None:
    """Write both. Without matplotlib, plots stay as they are, and a line says so."""
    shown = charts(report)
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text(page(report, {file: chart.shows for file, chart in shown.items()}))
    try:
        for file, chart in shown.items():
            draw(chart, PAGE.with_name(file))
    except ImportError as error:
        print(f"no plots ({error}): pip install -e '.[bench]'", file=sys.stderr)
