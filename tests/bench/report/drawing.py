"""Draws the report's plots as SVG, with matplotlib (the extra ``bench``).

Backgrounds are transparent, and lines and texts have colours that can be read on white and on
black.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.bench.report.charts import Chart

__all__ = ["draw"]

_INK = "#7d828a"
_COLOURS = ("#e0703a", "#c79a1e", "#2f8f9d", "#5b7fd6")
"""Of the series, in turn; told apart by most people who see few colours."""
_STYLE = {
    "svg.fonttype": "none",  # texts stay texts: small, and sharp
    "svg.hashsalt": "report",  # else each drawing differs from the one before
    "font.family": "sans-serif",
    "font.size": 10,
    **dict.fromkeys(("text.color", "axes.labelcolor", "xtick.color", "ytick.color"), _INK),
    **dict.fromkeys(("axes.edgecolor", "grid.color"), _INK),
    "axes.spines.top": False,
    "axes.spines.right": False,
}


def draw(chart: Chart, path: Path) -> None:
    """Draw it into that file."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(7, 3.2), layout="constrained")
        axes = figure.add_subplot()
        {"bars": _bars, "stacked": _stacked, "lines": _lines}[chart.kind](axes, chart)
        axes.set_title(chart.title, fontsize=11)
        axes.set_xlabel(chart.axis)
        axes.set_ylabel("seconds")
        axes.grid(axis="y", alpha=0.25)
        axes.yaxis.set_major_formatter("{x:g}")
        columns = len(chart.series)
        figure.legend(loc="outside lower center", ncols=columns, frameon=False, fontsize=9)
        metadata = {"Date": None, "Creator": None, "Description": chart.digest}
        figure.savefig(path, format="svg", transparent=True, metadata=metadata)


def _bars(axes: Any, chart: Chart) -> None:
    width = 0.8 / len(chart.series)
    for number, (name, values) in enumerate(chart.series.items()):
        places = [case + (number - (len(chart.series) - 1) / 2) * width for case in _places(chart)]
        drawn = axes.bar(places, values, width * 0.94, label=name, color=_COLOURS[number])
        axes.bar_label(drawn, fmt=lambda value: f"{value:.3g}", fontsize=8, color=_INK, padding=2)
    axes.set_yscale("log")
    axes.margins(y=0.15)
    axes.set_xticks(_places(chart), chart.cases)


def _stacked(axes: Any, chart: Chart) -> None:
    below = [0.0] * len(chart.cases)
    for number, (name, values) in enumerate(chart.series.items()):
        axes.bar(_places(chart), values, 0.6, bottom=below, label=name, color=_COLOURS[number])
        below = [low + more for low, more in zip(below, values, strict=True)]
    for place, height in zip(_places(chart), below, strict=True):
        axes.annotate(f"{height:.3g}", (place, height), ha="center", va="bottom", fontsize=8)
    axes.set_xticks(_places(chart), chart.cases)


def _lines(axes: Any, chart: Chart) -> None:
    numbers = [float(case) for case in chart.cases]
    for number, (name, values) in enumerate(chart.series.items()):
        axes.plot(numbers, values, "o-", ms=4, label=name, color=_COLOURS[number])
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_xticks(numbers, chart.cases)
    axes.minorticks_off()


def _places(chart: Chart) -> range:
    return range(len(chart.cases))
