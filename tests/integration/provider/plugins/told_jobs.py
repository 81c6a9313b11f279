"""What the nodes of made-up jobs tell in their tasks' states, in the documented form."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from typing import Any

__all__ = ["Told", "failed_gang", "instance", "paused", "running_gang", "told"]

Told = dict[int, tuple[dict[str, Any], dict[str, Any]]]
"""By map index: the task instance, and its state."""

_WHY = "ValueError: the loss is NaN in step 812"
_REPORT = f"""fit failed: rank 3: {_WHY}
  rank 3 (local rank 1) of node 1 on gpu-b, pid 4103, after 1 of 3 restarts
  failure class: user

Traceback (most recent call last):
  File "/srv/train/fit.py", line 88, in train
    raise ValueError(f"the loss is NaN in step {{step}}")
{_WHY}"""


def _at(seconds_ago: float) -> str:
    return (datetime.now(UTC) - timedelta(seconds=seconds_ago)).isoformat(timespec="seconds")


def instance(map_index: int = -1, state: str | None = "running", **more: Any) -> dict[str, Any]:
    """A task instance, as far as the page reads it."""
    return {
        "task_id": "fit",
        "map_index": map_index,
        "state": state,
        "try_number": 1,
        "hostname": "worker-1",
        "start_date": _at(700),
        "end_date": None if state == "running" else _at(5),
        **more,
    }


def told(index: int, nodes: int = 2, each: int = 2, *, step: int = 1240) -> dict[str, Any]:
    """The key ``elastic`` of a node of a job that runs."""
    host = f"gpu-{chr(ord('a') + index % 26)}{index // 26 or ''}"
    labels = [f"gpu-{chr(ord('a') + one % 26)}{one // 26 or ''}/0" for one in range(nodes)]
    ranks = [
        {
            "rank": index * each + local,
            "local_rank": local,
            "pid": 4100 + local,
            "doing": "steps",
            "step": step + local % 2,
            "total": 5000,
            "silent": 0.4,
        }
        for local in range(each)
    ]
    rounds = [
        _round(0, 690, 600, labels, 0, 140, "failure", "rank 3 on gpu-b: out of memory"),
        _round(1, 590, 320, labels[:1] or labels, 100, 610, "membership", "gpu-b/0 came back"),
        _round(2, 310, None, labels, 600, step, "", ""),
    ]
    points = [[at, 1764460000 + at, 2.3 * math.exp(-at / 400) + 0.1] for at in range(0, step, 40)]
    speed = [[at, 1764460000 + at, 900 + 40 * math.sin(at / 60)] for at in range(0, step, 40)]
    return {
        "version": 1,
        "time": _at(2),
        "every": 5 if not index else max(10, 5 * nodes),
        "try": 1,
        "run_id": "train-fit-manual-2026-11-30-3f9a",
        "backend": "served",
        "host": host,
        "label": labels[index],
        "node": index,
        "nodes": nodes,
        "min_nodes": 1,
        "max_nodes": nodes,
        "world_size": nodes * each,
        "restarts": 1,
        "max_restarts": 3,
        "doing": "runs",
        "detail": "",
        "outcome": "",
        "succeeded": None,
        "entrypoint": "fit.train",
        "seconds": 690.5,
        "rate": 2.13,
        "seconds_left": 1764,
        "ranks": ranks,
        "rounds": [one for one in rounds if labels[index] in one["nodes"]],
        "curves": {"metrics": {"loss": points, "samples_per_second": speed}} if not index else {},
        "checkpoints": {
            "folder": "s3://bucket/checkpoints/train.fit-2026-11-30",
            "resumed_from": 600,
            "committed": [{"step": 200 * n, "time": _at(700 - 100 * n)} for n in range(1, 7)],
            "next": 1200,
        },
        "failure": None,
        "account": {
            "seconds": 690,
            "training_percent": 88,
            "restarts": 1,
            "text": "11 min 30 s, 88 % training, 1 restart cost 40 s",
        },
        "left_out": [],
    }


def _round(
    number: int,
    began: float,
    ended: float | None,
    nodes: list[str],
    first: int,
    last: int,
    end: str,
    why: str,
) -> dict[str, Any]:
    return {
        "try": 1,
        "round": number,
        "began": _at(began),
        "ended": None if ended is None else _at(ended),
        "world_size": 2 * len(nodes),
        "nodes": nodes,
        "node": 0,
        "first_step": first,
        "last_step": last,
        "end": end,
        "why": why,
    }


def _state(text: str, *, hears: bool) -> dict[str, Any]:
    control = "taken here" if hears else "taken by the task instance with rank 0"
    return {"is": text, "since": _at(310), "try": 1, "world_size": 4, "control": control}


def running_gang(nodes: int = 2, each: int = 2, *, step: int = 1240) -> Told:
    """A gang that trains. Node 0 takes orders."""
    return {
        index: (
            instance(index),
            {
                "state": _state("runs", hears=index == 0),
                "progress": {"step": step, "total": 5000, "ranks": each, "time": _at(2)},
                "elastic": told(index, nodes, each, step=step),
            },
        )
        for index in range(nodes)
    }


def paused() -> Told:
    """The same, held by the order of a person."""
    gang = running_gang()
    for _, store in gang.values():
        store["state"]["is"] = "paused after step 1240: somebody presses a button"
        store["elastic"] |= {"doing": "paused", "rate": None, "seconds_left": None}
        store["progress"] |= {"steps_per_second": 0.3, "seconds_left": 9999}
    gang[0][1]["control_answer"] = {
        "asked": {"do": "pause", "why": "lunch"},
        "taken": _at(1),
        "understood": "pause",
        "then": [f"{_at(0)} paused after step 1240"],
    }
    return gang


def failed_gang() -> Told:
    """A gang that has failed: rank 3, on node 1."""
    gang = running_gang()
    exits = {0: -15, 1: -15, 2: -15, 3: 1}
    for index, (found, store) in gang.items():
        found |= {"state": "failed", "end_date": _at(5)}
        store["state"]["is"] = f"failed: rank 3: {_WHY}"
        elastic = store["elastic"]
        elastic |= {"doing": "ended", "outcome": store["state"]["is"], "succeeded": False}
        elastic["rounds"][-1] |= {"ended": _at(6), "end": "failure", "why": f"rank 3: {_WHY}"}
        elastic["failure"] = {
            "class": "user",
            "why": _WHY,
            "fatal": True,
            "rank": 3,
            "host": "gpu-b",
            "node": 1,
            "time": _at(6),
            "report": _REPORT,
            "ranks": [
                {
                    "rank": rank,
                    "host": "gpu-a" if rank < 2 else "gpu-b",
                    "exit": exits[rank],
                    "why": _WHY if rank == 3 else "",
                    "culprit": rank == 3,
                }
                for rank in range(2 * index, 2 * index + 2)
            ],
        }
    return gang
