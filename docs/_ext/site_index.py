"""The navigation of the site is what ``index.md`` lists, so that GitHub shows the same.

Each section of that page is a part of the navigation, and each link at the beginning of a list item
is a page of it, under the link's own words.
"""

from __future__ import annotations

import re
from typing import Any

__all__ = ["setup", "with_toctrees"]

_SECTION = re.compile(r"^## (.+)$", re.MULTILINE)
_PAGE = re.compile(r"^\* \[([^\]]+)\]\(([\w/-]+)\.md\)", re.MULTILINE)


def with_toctrees(text: str) -> str:
    """The page, and a hidden toctree for each of its sections."""
    _, *parts = _SECTION.split(text)
    trees = [
        f"```{{toctree}}\n:hidden:\n:caption: {caption}\n\n{_lines(pages)}```\n"
        for caption, body in zip(parts[::2], parts[1::2], strict=True)
        if (pages := _PAGE.findall(body))
    ]
    return "\n".join([text, *trees])


def _lines(pages: list[tuple[str, str]]) -> str:
    return "".join(f"{title} <{page}>\n" for title, page in pages)


def setup(app: Any) -> dict[str, bool]:
    """Called by Sphinx."""

    def read(_app: Any, name: str, source: list[str]) -> None:
        if name == "index":
            source[0] = with_toctrees(source[0])

    app.connect("source-read", read)
    return {"parallel_read_safe": True}
