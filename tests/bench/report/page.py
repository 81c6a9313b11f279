"""``benchmarks/report.md``: all figures of the report, for people.

This module may import nothing but the standard library and its neighbours.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from tests.bench.report.document import ROOT, Document, Part
from tests.bench.report.measurement import Measurement
from tests.bench.report.words import goal, spread, table, times

__all__ = ["PAGE", "page"]

PAGE: Path = ROOT / "benchmarks" / "report.md"
_HEAD = """\
# Measured

`make bench` writes this page from `report.json`. Each figure of ours stands beside its peer's of
the same run: the median, and in brackets the least and the most, where there are several values.
"Ratio" is the peer's median by ours; it travels from one machine to another, and seconds do not.
[docs/benchmarks.md](../docs/benchmarks.md) says what is measured, and how.
"""


def page(report: Document, plots: Mapping[str, str]) -> str:
    """The whole page. ``plots`` are files beside it, and what each shows."""
    return (
        "\n\n".join(
            [
                _HEAD.strip(),
                *_machines(report),
                _runs(report),
                *(f"![{shows}]({file})" for file, shows in plots.items()),
                *(section for name in sorted(report.parts) for section in _part(name, report)),
            ]
        )
        + "\n"
    )


def _machines(report: Document) -> Iterator[str]:
    """The machine; each with the benchmarks that ran there, if there are several."""
    by_facts: dict[str, list[str]] = {}
    for name in sorted(report.parts):
        facts = ", ".join(f"{what} {value}" for what, value in report.parts[name].machine.items())
        by_facts.setdefault(facts, []).append(name)
    for facts, names in by_facts.items():
        where = "" if len(by_facts) == 1 else f" of {', '.join(names)}"
        yield f"Machine{where}: {facts}."


def _runs(report: Document) -> str:
    """When each benchmark ran, and whether the machine did something else."""
    rows = [
        (
            f"[{name}](#{name})",
            f"`{part.command}`",
            part.date,
            f"`{part.commit}`",
            "not noted" if part.seconds is None else f"{part.seconds:.0f} s",
            _load(part),
        )
        for name, part in sorted(report.parts.items())
    ]
    head = ["benchmark", "command", "date", "commit", "took", "load average before, after"]
    return table(head, rows)


def _load(part: Part) -> str:
    if part.load_before is None or part.load_after is None:
        return "not noted"
    return f"{part.load_before:.1f}, {part.load_after:.1f}"


def _part(name: str, report: Document) -> Iterator[str]:
    part: Part = report.parts[name]
    yield f"## {name}"
    yield part.about
    has_goals = any(one.goal for one in part.figures.values())
    head = ["figure", "what", "peer", "peer's", "ours", "ratio", *["goal"] * has_goals]
    yield table(head, (_row(one)[: len(head)] for one in part.figures.values()))


def _row(one: Measurement) -> list[str]:
    peer = "" if one.peer is None else spread(one.peer, one.unit)
    ratio = "" if one.ratio is None else times(one.ratio)
    ours = spread(one.ours, one.unit)
    return [f"`{one.key}`", one.what, one.peer_name, peer, ours, ratio, goal(one)]
