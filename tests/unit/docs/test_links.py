"""Links of the pages that Sphinx does not build lead somewhere: to files, and to headings in them.

Sphinx itself sees to those between the pages of docs/ (``make docs``).
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from docs._ext.site_index import with_toctrees
from tests.unit.docs.blocks import ROOT

_LINK = re.compile(r"\]\((?!https?:)([^)#\s]*)(?:#([^)\s]+))?\)")
_FENCE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)


def _anchors(page: Path) -> set[str]:
    heads = re.findall(r"^#+ (.+)$", _FENCE.sub("", page.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


@pytest.mark.parametrize("name", ["README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md"])
def test_a_link_leads_somewhere(name: str) -> None:
    page = ROOT / name
    dead = []
    for path, anchor in _LINK.findall(_FENCE.sub("", page.read_text())):
        target = page.parent / path if path else page
        if not target.exists() or (anchor and anchor not in _anchors(target)):
            dead.append(f"{path}#{anchor}")
    assert not dead


@pytest.mark.parametrize("folder", ["llutil", "airflow_provider", "tests", "dags"])
def test_a_page_that_the_source_names_is_there(folder: str) -> None:
    named = set()
    for path in (ROOT / folder).rglob("*.py"):
        named |= set(re.findall(r"\bdocs/[\w/-]+\.md\b", path.read_text()))
    assert not {name for name in named if not (ROOT / name).is_file()}


def test_each_section_of_the_index_is_a_part_of_the_navigation() -> None:
    text = with_toctrees(
        "# Site\n\n## Begin\n\n* [A](a.md): x\n* [B](b/c.md)\n\n## No pages\n\nx\n"
    )
    assert text.count("```{toctree}") == 1
    assert ":caption: Begin\n\nA <a>\nB <b/c>\n" in text


def test_the_readme_leads_to_each_page_of_the_index_by_the_index() -> None:
    index = (ROOT / "docs" / "index.md").read_text()
    pages = {
        path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").rglob("*.md")
    } - {"index.md"}
    assert pages <= set(re.findall(r"\]\(([\w/-]+\.md)\)", index))
    assert "docs/index.md" in (ROOT / "README.md").read_text()
