"""The tables that README and docs show, each made from the report.

This module may import nothing but the standard library and its neighbours.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial

from tests.bench.report.document import Document
from tests.bench.report.measurement import Measurement, Sample
from tests.bench.report.words import amount, number, table, times

__all__ = ["TABLES"]

_LAUNCHES = {
    "first": "launch of workers that do nothing, default interval, first of a process",
    "later": "the same, a later one inside `warm_workers()`",
    "first-short": "`monitor_interval=0.1`, first",
    "later-short": "`monitor_interval=0.1`, later",
    "recovery-spawn": "from the SIGKILL of a worker until all run again; stock by spawn",
    "recovery-preloaded": "the same; stock by its own fork server with torch preloaded",
}
_ROUNDS = {
    "first": "until all are in the first round",
    "one-more": "until one more is let in",
    "killed": "until the others know of a killed agent",
}
_STORES = ("served", "etcd", "ZooKeeper")


def _launches(report: Document) -> str:
    """A row for each kind of launch, a column for each number of workers."""
    found = {name: report.cases("launch", name) for name in _LAUNCHES}
    cases = dict.fromkeys(one.case for row in found.values() for one in row)
    head = [f"{case} worker{'s' * (case != '1')}" for case in cases]
    rows = [[_LAUNCHES[name], *map(_change, row)] for name, row in found.items()]
    return table(["seconds, stock torch → ours", *head], rows)


def _change(one: Measurement) -> str:
    """Both figures, and how many times faster: ``30.7 → 2.08 (15x)``."""
    if one.peer is None or one.ratio is None:
        return number(one.ours.median)
    return f"{number(one.peer.median)} → {number(one.ours.median)} ({times(one.ratio)})"


def _rendezvous(report: Document) -> str:
    """A row for each store and torch's, a column for each number of nodes."""
    rows = []
    cases: list[str] = []
    for name, title in _ROUNDS.items():
        found = {store: report.cases("rendezvous", f"{name}-{store}") for store in _STORES}
        cases = [one.case for one in found["served"]]
        rows.append([title, "torch's c10d", *_medians(one.peer for one in found["served"])])
        for store, row in found.items():
            cells = _medians(one.ours for one in row)
            if name != "killed":  # where torch's figure is another one
                cells = [
                    f"{cell} ({times(one.ratio or 0)})"
                    for cell, one in zip(cells, row, strict=True)
                ]
            rows.append(["", store, *cells])
    head = [f"{cases[0]} nodes", *cases[1:]] if cases else []
    return table(["seconds", "", *head], rows)


def _medians(samples: Iterable[Sample | None]) -> list[str]:
    return [number(one.median) for one in samples if one is not None]


def _lost_hosts(report: Document) -> str:
    """A row for each lease, and one for torch."""
    rows, stock = [], ""
    for lease in ("3", "10"):
        row = [report.figure(f"rendezvous.lost-host-{store}.{lease}") for store in _STORES]
        rows.append([f"a lease of {lease} s", *_medians(one.ours for one in row)])
        (stock,) = _medians([row[0].peer])
    rows.append(["torch's c10d, its defaults", stock, "", ""])
    return table(["seconds until the others are in the next round", *_STORES], rows)


def _listed(names: dict[str, str], first: str, report: Document) -> str:
    """A row for each of these figures: its peer, ours, and the ratio."""
    return table([first, "peer", "ours", ""], _rows(names, report))


def _rows(names: dict[str, str], report: Document) -> Iterator[list[str]]:
    for name, title in names.items():
        one = report.figure(name)
        peer = "" if one.peer is None else f"{amount(one.peer.median, one.unit)}, {one.peer_name}"
        ratio = "" if one.ratio is None else times(one.ratio)
        yield [title, peer, amount(one.ours.median, one.unit), ratio]


_CHECKPOINTS = {
    "checkpoints.torch-save": "`worker.checkpoint` with `torch.save`",
    "checkpoints.dcp-save": "`worker.checkpoint` with `dcp.save`",
    "checkpoints.dcp-async": "`worker.checkpoint` with `dcp.async_save` and `folder.after`",
    "checkpoints.empty": "`worker.checkpoint` with nothing in it",
}
_STEPS = {
    "progress.step": "`worker.step(5)`",
    "progress.step-loss": "`worker.step(5, 10, loss=0.5)`",
    "progress.progress": "`worker.progress(5, 10)`",
}
_LOGS = {
    "logs.lines": "100,000 lines of a rank, from the first in the task's log to the last",
    "logs.steps": "a step of a training whose rank 0 prints 100,000 lines a second",
}
_SUMMARY = {
    "launch.later.2": "a launch of two workers inside `warm_workers()`, default interval",
    "launch.recovery-spawn.2": "from the SIGKILL of one of two workers until both run again",
    "launch.recovery-preloaded.2": "the same",
    "operator_task.task.2": "an Airflow task whose two workers import torch and end",
    "operator_task.task-kept.2": "the same, on a host that keeps agents ready",
    "kills.stood.rank": "no step is made in a training whose rank was killed",
    "kills.lost.cleared": "time that a training loses when its task is cleared",
    "rendezvous.first-served.8": "until eight nodes are in their first round",
    "rendezvous.lost-host-served.10": "until the others go on after the loss of a host",
    "logs.lines": "100,000 lines of a rank in the task's log",
}
_TASKS = {
    "operator_task.task.1": "a task with one worker",
    "operator_task.task.2": "a task with two workers",
    "operator_task.task-kept.1": "one worker, on a host that keeps agents ready",
    "operator_task.task-kept.2": "two workers, on a host that keeps agents ready",
}
_KILLED = {
    "kills.lost.rank": "a rank gets SIGKILL: time lost",
    "kills.stood.rank": "of it, no step was made",
    "kills.again.rank": "of it, steps were done again",
    "kills.lost.cleared": "the running task is cleared: time lost",
    "kills.stood.cleared": "of it, no step was made",
    "kills.again.cleared": "of it, steps were done again",
}


def _in_milliseconds(sample: Sample) -> str:
    return f"{number(1000 * sample.median)} ({number(1000 * sample.least)})"


_FLOOR = {
    "launch_stages.floor-fork.heap": "to fork a process that has torch, its C heap on huge pages",
    "launch_stages.floor-end.heap": "to end a fork of it that has done nothing",
    "launch_stages.floor-fork.all": "the fork, with Python's objects on huge pages too (not kept)",
    "launch_stages.floor-end.all": "the end, with these too (not kept)",
    "launch_stages.floor-collapse": "to put them there, once for a fork server (not kept)",
}
_ENDS = {
    "asked": "SIGTERM to an agent",
    "agent": "SIGKILL to an agent",
    "rank": "SIGKILL to a rank",
    "node": "node lost, a spare waits",
}


def _killed_nodes(report: Document) -> str:
    """A row for each way to be killed and each store."""
    rows = []
    for case, title in _ENDS.items():
        for store in ("etcd", "served"):
            again = report.figure(f"killed_nodes.again-{store}.{case}").ours
            seconds = report.figure(f"killed_nodes.seconds-{store}.{case}").ours
            steps = f"{again.most:.0f}, {again.median:.0f}"
            cells = [steps, f"{number(seconds.most)}, {number(seconds.median)}"]
            rows.append([title if store == "etcd" else "", store, f"{again.n}", *cells])
    head = ["killed", "ledger", "kills", "steps done twice: most, median"]
    return table([*head, "seconds until all ranks train again: most, median"], rows)


def _tasks(report: Document) -> str:
    """A row for each of these figures that was measured."""
    found = {f"operator_task.{key}" for key in report.parts["operator_task"].figures}
    return _listed({name: _TASKS[name] for name in _TASKS if name in found}, "", report)


def _run(benchmark: str, report: Document) -> str:
    """When and where it ran, and what else the machine did."""
    part = report.parts[benchmark]
    facts = {"date": part.date, **part.machine}
    facts["load average before, after"] = f"{part.load_before}, {part.load_after}"
    return table(["run", ""], facts.items())


def _stages(kind: str, report: Document) -> str:
    """A row for each stage, a column for each number of workers: the median, and the least."""
    rows: dict[str, list[str]] = {}
    cases: list[str] = []
    peer = ""
    for one in report.figures("launch_stages", f"{kind}-"):
        rows.setdefault(one.what, []).append(_in_milliseconds(one.ours))
        cases += [] if one.case in cases else [one.case]
        if one.peer is not None:
            peer = f"stock: {one.peer_name}"
            rows.setdefault(peer, []).append(_in_milliseconds(one.peer))
    rows[peer] = rows.pop(peer, [])  # last
    head = [f"{case} worker{'s' * (case != '1')}" for case in cases]
    return table(
        ["milliseconds: median (least)", *head], ([what, *row] for what, row in rows.items() if row)
    )


TABLES: dict[str, Callable[[Document], str]] = {
    "checkpoints": partial(_listed, _CHECKPOINTS, "256 MiB"),
    "killed-nodes": _killed_nodes,
    "kills": partial(_listed, _KILLED, ""),
    "launches": _launches,
    "logs": partial(_listed, _LOGS, ""),
    "lost-hosts": _lost_hosts,
    "rendezvous": _rendezvous,
    "operator-task": _tasks,
    "summary": partial(_listed, _SUMMARY, ""),
    "stages-cold": partial(_stages, "cold"),
    "stages-floor": partial(_listed, _FLOOR, ""),
    "stages-recovery": partial(_stages, "recovery"),
    "stages-run": partial(_run, "launch_stages"),
    "stages-task": partial(_stages, "task"),
    "stages-warm": partial(_stages, "warm"),
    "step-costs": partial(_listed, _STEPS, ""),
}
