"""The code blocks of README.md and docs/, for the tests that look at them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

__all__ = ["PAGES", "ROOT", "Block", "blocks", "files_of", "write_files"]

ROOT = Path(__file__).parents[3]
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))

_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_FILE = re.compile(r"file\s+`(dags/[\w/]+\.py)`")


@dataclass(frozen=True, slots=True)
class Block:
    """One block: its page, the line at which it begins, its language, and the text before it."""

    page: str
    line: int
    language: str
    text: str
    before: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


@cache
def blocks() -> tuple[Block, ...]:
    """Every block of every page."""
    return tuple(block for page in PAGES for block in _of(page))


def _of(page: Path) -> Iterator[Block]:
    text = page.read_text()
    last = 0
    for found in _BLOCK.finditer(text):
        line = text.count("\n", 0, found.start()) + 1
        before = text[last : found.start()]
        yield Block(page.relative_to(ROOT).as_posix(), line, found[1], found[2], before)
        last = found.end()


def files_of(page: str) -> dict[str, str]:
    """The complete files that a page has, by their paths: blocks after ``the file `dags/...```."""
    return {
        named[-1]: block.text
        for block in blocks()
        if block.page == page
        and block.language == "python"
        and (named := _FILE.findall(block.before))
    }


def write_files(page: str, folder: Path) -> None:
    """Write the files that a page has into ``folder``, as a reader would."""
    for name, text in files_of(page).items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
