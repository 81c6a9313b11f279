"""A training in a real Airflow whose tasks are marked failed and cleared at random steps."""

from __future__ import annotations

import random
import time
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from statistics import mean

import psutil  # type: ignore[import-untyped]  # psutil ships no types

from tests.airflow.client import Run, Task, wait
from tests.airflow.conftest import await_nothing_left
from tests.airflow.server import Airflow
from tests.support.training_ranks import Rank, check_history, last_round, ranks_of, redone

__all__ = ["How", "Kill", "KilledGang", "table"]

_LATEST = 150
"""How many steps of a round are done, at most, when its turn comes."""
_SOON = 90.0


class How(StrEnum):
    """What a user does."""

    MARKED = "marked failed, then cleared"
    CLEARED = "cleared while it ran"


@dataclass(frozen=True, slots=True, kw_only=True)
class Kill:
    """What a user did to task instances ``nodes``. ``redone`` is how many steps were done twice, at
    most, in the ``rounds`` that began until both nodes trained again. ``ended`` is after how many
    seconds nothing was left of a node that was marked failed, and ``seconds`` how long it took from
    the clear until all ranks had made a step.
    """

    how: How
    nodes: tuple[int, ...]
    step: int
    rounds: int
    redone: int
    ended: float
    seconds: float


class KilledGang:
    """The gang ``train`` of ``run``, whose ranks write down what they do in ``folder``. If it
    ``needs_both`` nodes, one gives up when the other is marked failed.
    """

    def __init__(
        self, run: Run, server: Airflow, folder: Path, seed: int, *, needs_both: bool
    ) -> None:
        self.kills: list[Kill] = []
        self.run, self._server, self._folder = run, server, folder
        self._random = random.Random(seed)
        self._needs_both = needs_both
        self._tries = [1, 1]

    def kill(self, how: How) -> Kill:
        """Do this to one node or both, after a random number of steps; wait until all train."""
        before = self._trains(after=self._random.randrange(_LATEST))
        nodes = self._random.choice([(0,), (1,), (0, 1)])
        began = cleared = time.monotonic()
        if how is How.MARKED:
            for node in nodes:
                self._task(node).mark("failed")
            if self._needs_both or len(nodes) == 2:
                nodes = (0, 1)  # the other one gives up
                self.run.finish("failed")
            self._await_gone(self._names(nodes))
            cleared = time.monotonic()
        if nodes == (0, 1):
            self.run.clear("train")
        else:
            self._task(*nodes).clear()
        old = self._names(nodes)
        for node in nodes:
            self._tries[node] += 1
        after = self._trains()
        now = time.monotonic()
        self._await_gone(old)
        twice = redone(ranks_of(self._folder), before[0].round, after[0].round)
        kill = Kill(
            how=how,
            nodes=nodes,
            step=max(one.steps[-1] for one in before),
            rounds=len(twice),
            redone=max(twice),
            ended=cleared - began,
            seconds=now - cleared,
        )
        self.kills.append(kill)
        print(kill, flush=True)
        return kill

    def stop(self) -> None:
        """Stop the job, which ends as a success; and check what its ranks wrote down."""
        crew = self._trains()
        first = next(one for one in crew if one.rank == 0)
        self._task(int(first.node[0])).store("control", "stop")
        self.run.finish("success")
        assert "was stopped after step" in self._task(0).stored()["state"]["is"]
        values = [self._task(node).xcoms()["return_value"] for node in (0, 1)]
        (stopped,) = {one.stopped for one in last_round(self._folder)}
        assert values[0] | values[1] == dict.fromkeys("0123", stopped)
        check_history(ranks_of(self._folder), 1)
        await_nothing_left(self._server, self.run, seconds=20)

    def _names(self, nodes: Iterable[int]) -> list[str]:
        """What the last tries of these nodes are called in their environment."""
        return [f"{node}.{self._tries[node]}" for node in nodes]

    def _task(self, node: int) -> Task:
        return self.run.task("train", node)

    def _trains(self, *, after: int = 0) -> list[Rank]:
        """Wait until both nodes, in their last tries, have done more than ``after`` steps of one
        round; its ranks.
        """
        wanted = set(self._names((0, 1)))

        def there() -> list[Rank] | None:
            crew = last_round(self._folder)
            if len(crew) < 4 or {one.node for one in crew} != wanted:
                return None
            return crew if all(len(one.steps) > after for one in crew) else None

        return wait(f"tries {self._tries} to train", _SOON, there, self.run.tail)

    def _await_gone(self, tries: Iterable[str]) -> None:
        """Wait until no process of these tries is left."""
        wait(
            f"the processes of {tries} to be gone",
            30,
            lambda: None if any(self._left(name) for name in tries) else True,
            lambda: "\n".join(repr(process) for name in tries for process in self._left(name)),
        )

    def _left(self, name: str) -> list[psutil.Process]:
        return self._server.processes(AIRFLOW_CTX_DAG_RUN_ID=self.run.run_id, NODE=name)


def table(kills: Iterable[Kill]) -> str:
    """The figures of these kills, a line for each way."""
    ways: dict[How, list[Kill]] = defaultdict(list)
    for kill in kills:
        ways[kill.how].append(kill)
    return "\n".join(
        f"{how}: {len(some)} kills, {sum(one.rounds for one in some)} rounds; steps redone: "
        f"{max(one.redone for one in some)} at most, {mean(one.redone for one in some):.1f} in the "
        f"mean; seconds until all ranks run: {max(one.seconds for one in some):.1f} at most, "
        f"{mean(one.seconds for one in some):.1f} in the mean"
        for how, some in sorted(ways.items())
    )
