"""Puts tables that are made from the code into pages: ``<!-- code: NAME -->`` becomes one.

GitHub shows nothing there; each such page says so, and leads to the source.
"""

from __future__ import annotations

import re
from typing import Any

from docs._ext import code_tables, option_tables
from docs._ext.source import ROOT

__all__ = ["MARKER", "TABLES", "filled", "setup"]

MARKER = re.compile(r"^<!-- code: ([\w-]+) -->$", re.MULTILINE)
"""Where a table goes."""

TABLES = option_tables.TABLES | code_tables.TABLES
"""What makes each table."""


def filled(text: str) -> str:
    """A page with its tables.

    :raises KeyError: there is no table of that name.
    """
    return MARKER.sub(lambda found: TABLES[found[1]](), text)


def setup(app: Any) -> dict[str, bool]:
    """Called by Sphinx."""

    def read(app: Any, name: str, source: list[str]) -> None:
        if MARKER.search(source[0]):
            source[0] = filled(source[0])
            for module in (ROOT / "llutil", ROOT / "airflow_provider"):
                for path in module.rglob("*.py"):
                    app.env.note_dependency(str(path), docname=name)

    app.connect("source-read", read)
    return {"parallel_read_safe": True}
