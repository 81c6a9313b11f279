"""What the plots of the report show, as values; ``drawing`` draws them.

This module may import nothing but the standard library and its neighbours.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

from tests.bench.report.document import Document
from tests.bench.report.measurement import Measurement

__all__ = ["Chart", "charts"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Chart:
    """A plot of seconds. ``series`` has the values of each name, one for each of ``cases``. Bars
    are ``stacked`` or side by side; lines stand where there are no bars. ``shows`` says in words
    what is to be seen.
    """

    title: str
    shows: str
    cases: tuple[str, ...]
    axis: str
    series: Mapping[str, tuple[float, ...]]
    kind: str

    @property
    def digest(self) -> str:
        """What tells its figures from others; it is in the drawing."""
        return hashlib.sha256(repr(self).encode()).hexdigest()[:16]


def charts(report: Document) -> dict[str, Chart]:
    """All plots whose figures the report has, by the name of their file."""
    found = {}
    for file, chart in _CHARTS.items():
        with suppress(KeyError):
            found[file] = chart(report)
    return found


def _recovery(report: Document) -> Chart:
    spawn = report.cases("launch", "recovery-spawn")
    preloaded = report.cases("launch", "recovery-preloaded")
    return Chart(
        title="From the SIGKILL of a worker until all run again",
        shows="seconds from the SIGKILL of a worker until all workers run again, by their number",
        cases=tuple(one.case for one in spawn),
        axis="workers of a node",
        series={
            "torch, spawn": _peers(spawn),
            "torch, fork server with torch preloaded": _peers(preloaded),
            "ours": tuple(one.ours.median for one in spawn),
        },
        kind="bars",
    )


def _rendezvous(report: Document) -> Chart:
    stores = ("ZooKeeper", "etcd", "served")
    found = {store: report.cases("rendezvous", f"first-{store}") for store in stores}
    ours = {store: tuple(one.ours.median for one in row) for store, row in found.items()}
    return Chart(
        title="Until all nodes are in the first round",
        shows="seconds until all nodes are in the first round, by their number",
        cases=tuple(one.case for one in found["served"]),
        axis="nodes",
        series={"torch's c10d": _peers(found["served"]), **ours},
        kind="lines",
    )


def _kills(report: Document) -> Chart:
    parts = {"stood": "no step was made", "again": "steps were done again"}
    kinds = {"rank": "a rank is killed", "cleared": "the task is cleared"}
    rows = {words: report.cases("kills", name) for name, words in parts.items()}
    return Chart(
        title="Time that a training in Airflow loses to a kill",
        shows="seconds that a training loses to a kill, with torchrun and with ours",
        cases=tuple(f"{what}:\n{side}" for what in kinds.values() for side in ("torchrun", "ours")),
        axis="",
        series={
            words: tuple(sample.median for one in row for sample in (one.peer, one.ours) if sample)
            for words, row in rows.items()
        },
        kind="stacked",
    )


def _peers(row: Sequence[Measurement]) -> tuple[float, ...]:
    return tuple(one.peer.median for one in row if one.peer is not None)


_CHARTS: dict[str, Callable[[Document], Chart]] = {
    "kills.svg": _kills,
    "recovery.svg": _recovery,
    "rendezvous.svg": _rendezvous,
}
