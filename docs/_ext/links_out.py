"""Links from a page to Markdown files outside of docs/, such as ``../SECURITY.md``.

GitHub shows these files. The site has no such page, so there it is the file itself. A link to a
file that is not there stays as it is, and is an error.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

__all__ = ["setup", "with_downloads"]

_LINK = re.compile(r"\[([^\]`]+)\]\(((?:\.\./)+[\w/.-]+\.md)\)")


def with_downloads(text: str, page: Path, docs: Path) -> str:
    """The text of ``page``, whose links out of ``docs`` are downloads."""

    def made(found: re.Match[str]) -> str:
        target = (page.parent / found[2]).resolve()
        if target.is_relative_to(docs.resolve()) or not target.is_file():
            return found[0]
        return f"{{download}}`{found[1]} <{found[2]}>`"

    return _LINK.sub(made, text)


def setup(app: Any) -> dict[str, bool]:
    """Called by Sphinx."""

    def read(app: Any, name: str, source: list[str]) -> None:
        source[0] = with_downloads(source[0], Path(app.env.doc2path(name)), Path(app.srcdir))

    app.connect("source-read", read)
    return {"parallel_read_safe": True}
