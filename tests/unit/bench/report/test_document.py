"""A report that is written is read as it was, and one benchmark replaces its own part alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.bench.report.blocks import block
from tests.bench.report.document import Document, Part
from tests.bench.report.measurement import Goal, Measurement, Sample

_QUICK = Measurement(
    name="first",
    case="2",
    what="a launch",
    unit="s",
    ours=Sample.of([0.05, 0.04, 0.06]),
    peer=Sample.of([1.0]),
    peer_name="torch",
    goal=Goal("ratio", 25),
)
_ALONE = Measurement(name="look", what="a look", unit="s", ours=Sample.of([2e-6]))


def _part(*figures: Measurement, **more: str) -> Part:
    facts = {
        "about": "Launches.",
        "command": "python -m tests.bench launch",
        "date": "2026-11-30 07:00 UTC",
        "commit": "0123abcd",
        "machine": {"cores": "2"},
        **more,
    }
    return Part.of(figures, **facts, seconds=1.5, load_before=0.1, load_after=0.2)


def test_it_is_read_as_it_was_written(tmp_path: Path) -> None:
    report = Document({"launch": _part(_QUICK, _ALONE)})
    report.save(tmp_path / "report.json")
    assert Document.load(tmp_path / "report.json") == report


def test_one_benchmark_replaces_its_own_part_alone() -> None:
    report = Document({"launch": _part(_QUICK), "other": _part(_ALONE)})
    again = report.with_part("launch", _part(_QUICK, date="2026-12-01 07:00 UTC"))
    assert again.parts["other"] is report.parts["other"]
    assert again.parts["launch"].date == "2026-12-01 07:00 UTC"


def test_two_figures_of_one_name_are_refused() -> None:
    with pytest.raises(ValueError, match=r"first\.2"):
        _part(_QUICK, _QUICK)


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("launch.first.2", "50.0 ms"),
        ("launch.first.2:peer", "1.00 s"),
        ("launch.first.2:ratio", "20x"),
        ("launch.look", "2.00 µs"),
    ],
)
def test_a_figure_is_known_by_its_name(name: str, wanted: str) -> None:
    assert block(Document({"launch": _part(_QUICK, _ALONE)}), name) == wanted


@pytest.mark.parametrize("name", ["launch.second", "lunch.first.2", "launch.look:ratio", "lunches"])
def test_what_the_report_does_not_have_is_an_error(name: str) -> None:
    with pytest.raises(KeyError, match=r"look|figure|table"):
        block(Document({"launch": _part(_QUICK, _ALONE)}), name)


def test_a_report_of_another_version_is_refused(tmp_path: Path) -> None:
    (tmp_path / "report.json").write_text('{"version": 0, "benchmarks": {}}')
    with pytest.raises(ValueError, match="version 0"):
        Document.load(tmp_path / "report.json")


def test_figures_are_found_by_what_their_names_begin_with() -> None:
    report = Document({"launch": _part(_QUICK, _ALONE)})
    assert report.figures("launch", "first") == [_QUICK]
    with pytest.raises(KeyError, match="'second' of 'launch'"):
        report.figures("launch", "second")
