"""docs/architecture.md lists the rooms that there are, and pages name files that there are."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def test_the_page_lists_every_room_and_no_other() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text()
    listed = re.findall(r"^\| `((?:airflow_provider|llutil)[a-z_/]*)` \|", page, re.MULTILINE)
    rooms = {
        face.parent.relative_to(ROOT).as_posix()
        for package in ("airflow_provider", "llutil")
        for face in (ROOT / package).rglob("__init__.py")
    }
    assert len(listed) == len(set(listed))
    assert set(listed) == rooms


@pytest.mark.parametrize("page", ["docs/architecture.md", "CONTRIBUTING.md"])
def test_every_file_that_the_page_names_is_there(page: str) -> None:
    text = (ROOT / page).read_text()
    named = set(re.findall(r"`((?:airflow_provider|llutil|tests|docs)/[\w/-]+\.\w+)`", text))
    assert not {name for name in named if not (ROOT / name).is_file()}


def test_the_page_of_the_tests_helpers_lists_every_helper_and_no_other() -> None:
    folder = ROOT / "tests" / "support"
    listed = re.findall(
        r"^\| `([\w/]+(?:\.py|/))` \|", (folder / "README.md").read_text(), re.MULTILINE
    )
    helpers = {path.name for path in folder.glob("*.py")}
    helpers |= {f"{path.name}/" for path in folder.iterdir() if path.name == "stub_modules"}
    assert sorted(listed) == sorted(helpers)
