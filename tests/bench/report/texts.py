"""The texts that state figures: README, the changelog and the pages of docs.

This module may import nothing but the standard library and its neighbours.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from tests.bench.report.blocks import block
from tests.bench.report.document import ROOT, Document
from tests.bench.report.markers import fill, without_marked

__all__ = ["filled", "texts", "unmarked"]

_CODE = re.compile(r"^```.*?^```|`[^`\n]*`", re.DOTALL | re.MULTILINE)
_FIGURE = re.compile(
    r"""
    \d[\d.,]*x\b                                      # so many times as fast
    | \d[\d.,]*\ ?(?:ms|µs|us|ns|milliseconds?|microseconds?|nanoseconds?)\b
    | \d[\d.,]*\ ?(?:lines|samples|requests|MB|GB)(?:/s|\ a\ second)
    | →\ \d
    """,
    re.VERBOSE,
)


def texts() -> list[Path]:
    """Their files."""
    return [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]


def filled(text: str, report: Document) -> str:
    """``text`` with the report's figures between its markers."""
    return fill(text, lambda name: block(report, name))


def unmarked(text: str) -> Iterator[str]:
    """Lines that state a measured figure outside of markers, as far as that can be seen: how many
    times as fast something is, times below a second, rates. What stands in code is an example.
    """
    for line in _CODE.sub("", without_marked(text)).splitlines():
        if _FIGURE.search(line):
            yield line.strip()
