"""docs/security.md names for each boundary the tests that attack it."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "security.md").read_text()


def test_every_boundary_names_tests_and_all_of_these_are_there() -> None:
    _, _, table = PAGE.partition("| what crosses |")
    head, _, *rows = table.split("\n\n")[0].splitlines()
    assert rows, head
    for row in rows:
        named = re.findall(r"`(tests/[\w/]+\.py)`", row)
        assert named, row
        for name in named:
            file = ROOT / name
            assert file.is_file(), name
            assert re.search(
                r"^ *(async def test_|def test_|class Test)", file.read_text(), re.MULTILINE
            ), name


def test_every_file_of_the_code_that_the_page_names_is_there() -> None:
    named = set(re.findall(r"`((?:llutil|airflow_provider)/[\w/]+(?:\.py)?)`", PAGE))
    assert named
    assert not {name for name in named if not (ROOT / name).exists()}


def test_every_file_that_loads_a_pickle_is_named_on_the_page() -> None:
    loads = re.compile(r"\bpickle\.(load|loads|Unpickler)\(|\(pickle\.Unpickler\)|torch\.load\(")
    quoted = "import pickle; value = pickle.load("  # a line that is told to people
    found = {
        file.relative_to(ROOT).as_posix()
        for package in ("llutil", "airflow_provider")
        for file in (ROOT / package).rglob("*.py")
        if loads.search(file.read_text().replace(quoted, ""))
    }
    assert found
    assert not {name for name in found if f"`{name}`" not in PAGE}
