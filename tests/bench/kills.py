"""Time that a training loses to a kill, with torchrun in a BashOperator and with ours, in a real
Airflow.

Two ranks train in lockstep, a hundredth of a second a step, with a checkpoint every 250 steps. A
rank gets SIGKILL; or a user clears the running task, which Airflow then ends with SIGTERM and, 5 s
later, SIGKILL, and starts again. Both sides are struck at the same random steps between two
checkpoints. With torchrun the script saves with torch.save and resumes by itself; with ours it
calls ``worker.step``, ``worker.checkpoint`` and ``worker.resume``.

The time lost is how much later the training is than without the kill: the steps that it has to do
again, and the time in which it stood. What a rank's kill makes it do again depends on how often it
saves, and is the same on both sides; with hours between two checkpoints it would be hours. When a
task is cleared, our ranks save before they end.
"""

from __future__ import annotations

import os
import random
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.airflow.client import Run
from tests.bench._bench_airflow import bench_airflow
from tests.bench._training_lives import Cost, Life, await_life, cost, read_life
from tests.bench.report.measurement import Measurement, Sample

__all__ = ["measure"]

_EVERY = 250
_KILLS = {"rank": 6, "cleared": 3}
_WHAT = {"rank": "a rank gets SIGKILL", "cleared": "the running task is cleared"}
_SEED = 1
_SETTLED = 50  # steps of a life before it is struck: its first ones are slow
_PEER = "torchrun in a BashOperator"


def measure() -> Iterator[Measurement]:
    """What each kind of kill costs."""
    with bench_airflow("training_torchrun", "training_ours") as server:
        costs = {
            side: _side(server.client.trigger, f"training_{side}") for side in ("torchrun", "ours")
        }
    for kind, what in _WHAT.items():
        ours, stock = costs["ours"][kind], costs["torchrun"][kind]
        for name, words, of in (
            ("lost", "all time lost", lambda one: one.lost),
            ("stood", "of it, time in which no step was made", lambda one: one.stood),
            ("again", "of it, steps done again", lambda one: one.again),
        ):
            yield Measurement(
                name=name,
                case=kind,
                what=f"{words}, when {what}",
                unit="s",
                ours=Sample.of(map(of, ours)),
                peer=Sample.of(map(of, stock)),
                peer_name=_PEER,
            )


def _side(trigger: Callable[..., Run], dag_id: str) -> dict[str, list[Cost]]:
    """The cost of each kill of one training, by its kind."""
    chance = random.Random(_SEED)
    costs: dict[str, list[Cost]] = {kind: [] for kind in _KILLS}
    with tempfile.TemporaryDirectory(prefix="killed-training-") as name:
        folder = Path(name)
        run = trigger(dag_id, {"folder": name})
        try:
            for kind, kills in _KILLS.items():
                for _ in range(kills):
                    where = chance.randrange(_EVERY - 2)
                    costs[kind].append(_kill(run, folder, kind, where))
        finally:
            (folder / "stop").touch()
            run.finish(None, seconds=60)
    return costs


def _kill(run: Run, folder: Path, kind: str, where: int) -> Cost:
    """Strike so many steps after a checkpoint, and wait until it trains again; what it cost."""

    def is_due(life: Life) -> bool:
        due = -(-(life.resumed + _SETTLED + 1) // _EVERY) * _EVERY + where
        return life.step >= due

    before = await_life(f"{run.dag_id} to train", folder, is_due, run.tail)
    killed = time.monotonic()
    if kind == "rank":
        os.kill(before.pids[1], signal.SIGKILL)
    else:
        run.task("job").clear()
    name = before.name
    after = await_life(
        f"{run.dag_id} to train again", folder, lambda life: life.name != name, run.tail
    )
    return cost(killed, read_life(folder, before.name) or before, after)
