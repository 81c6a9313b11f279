"""A training whose nodes and ranks are killed at random steps, and replaced."""

from __future__ import annotations

import os
import random
import signal
import time
from collections import defaultdict
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from statistics import mean

import psutil  # type: ignore[import-untyped]  # psutil ships no types

from llutil.events.events import Events
from tests.integration.rendezvous.jobs import Agent, Job, until
from tests.support.training_ranks import Rank, check_history, last_round, ranks_of, redone

__all__ = ["EVERY", "How", "Kill", "KilledJob", "table"]

EVERY = 50
"""After how many steps these trainings save by themselves."""
_TRAINING = "tests.support.training:train_with_ddp"
_LATEST = 150
"""How many steps of a round are done, at most, when its turn comes."""
_GONE = 10.0  # seconds until what a killed agent has left is gone
_ENDS = 60.0  # seconds for a node to end that was asked to, on a busy machine


class How(StrEnum):
    """The ways to be killed."""

    ASKED = "SIGTERM to an agent"
    AGENT = "SIGKILL to an agent"
    RANK = "SIGKILL to a rank"
    NODE = "loss of a node"

    @property
    def costs_a_node(self) -> bool:
        """Whether a node is gone afterwards."""
        return self is not How.RANK


@dataclass(frozen=True, slots=True, kw_only=True)
class Kill:
    """One kill, at ``step``. ``redone`` is how many steps were done twice for it. ``rounds`` is how
    many began until all of the ``nodes`` that there were then trained, and ``redone_later`` how
    many steps the later ones of these redid. ``seconds`` passed until all ranks had made a step.
    """

    how: How
    node: str
    spare: bool
    nodes: int
    step: int
    redone: int
    rounds: int
    redone_later: int
    seconds: float

    @property
    def allowed(self) -> int:
        """How many steps may be done twice for it."""
        return 1 if self.how is How.ASKED else EVERY + 1


class KilledJob:
    """A training of ``nodes`` nodes, as it is after each kill. ``least`` is how many are enough:
    then a kill may cost one for a while, and a newcomer is let in later. Without ``spares``, no
    node waits for another one's place: only a node that comes new can serve the ledger.
    """

    def __init__(
        self,
        job: Job,
        seed: int,
        *,
        nodes: int = 2,
        least: int = 2,
        spares: bool = True,
        training: str = _TRAINING,
        args: dict[str, int] | None = None,
    ) -> None:
        self.job = job
        self.kills: list[Kill] = []
        self._random = random.Random(seed)
        self._nodes, self._least, self._spares = nodes, least, spares
        self._training, self._args = training, args
        self._running: dict[str, Agent] = {}
        if training == _TRAINING:
            job.import_ahead("torch._dynamo")  # DistributedDataParallel does, and it takes long
        for _ in range(nodes):
            self.start()

    def start(self) -> None:
        """Start one more node."""
        name = f"n{len(self.job.agents)}"
        self._running[name] = self.job.node(
            name,
            script=self._training,
            trains=self._args or {},
            min_nodes=self._least,
            max_nodes=self._nodes,
            max_restarts=10**6,
            checkpoint_path=str(self.job.folder / "checkpoints"),
            checkpoint_every=EVERY,
        )

    def kill(self, how: How, then: int = 0) -> Kill:
        """Kill somebody in this way, after a random number of steps; wait until the job trains.

        ``then`` is how many nodes it has afterwards; by default, as many as before.
        """
        count = len(self._running)
        then = then or count
        spare = then == count == self._nodes and how in self._with_spare()
        before = self._trains(count, after=self._random.randrange(_LATEST))
        if spare:
            self.start()
            self.job.members(self._nodes + 1)
        victim = self._random.choice(before)
        began = time.monotonic()
        self._harm(how, victim.node, victim.pid)
        while len(self._running) < then:
            self.start()
        crew = self._trains(len(self._running), not_in=before[0].round)
        seconds = time.monotonic() - began
        if how.costs_a_node:
            pids = [one.pid for one in before if one.node == victim.node]
            until("its ranks are gone", lambda: not any(map(psutil.pid_exists, pids)), _GONE)
        redo, *later = redone(self.ranks(), before[0].round, crew[0].round)
        kill = Kill(
            how=how,
            node=victim.node,
            spare=spare,
            nodes=len(self._running),
            step=max(one.steps[-1] for one in self.ranks() if one.round == before[0].round),
            redone=redo,
            rounds=1 + len(later),
            redone_later=max(later, default=0),
            seconds=seconds,
        )
        self.kills.append(kill)
        print(kill, flush=True)
        return kill

    def _with_spare(self) -> set[How]:
        """The ways for which a spare node waits this time."""
        if not self._spares:
            return set()
        return {How.NODE, *self._random.choice([(), (How.ASKED, How.AGENT)])}

    def kill_soon(self, how: How) -> None:
        """Kill somebody in this way, wherever it is then, if it has anything to kill; and start a
        new node in its place.
        """
        time.sleep(self._random.uniform(0, 1.5))
        name = self._random.choice([*self._running])
        ranks = [one for one in last_round(self.job.folder) if one.node == name]
        with suppress(ProcessLookupError):
            self._harm(how, name, self._random.choice(ranks).pid if ranks else 0)
        while len(self._running) < self._nodes:
            self.start()

    def stop(self) -> None:
        """Stop the job, which ends as a success; and check what its ranks wrote down."""
        crew = self._trains(len(self._running))
        Events.attach(crew[0].page).stop_all_tasks.set()
        values = {}
        for agent in self._running.values():
            values |= agent.ends()["values"]
        (stopped,) = {one.stopped for one in last_round(self.job.folder)}
        assert values == {str(one.rank): stopped for one in crew}
        check_history(self.ranks(), EVERY + 1)
        checkpoints = Path(self.job.folder, "checkpoints", self.job.run_id)
        assert len(list(checkpoints.glob("step-*"))) <= 4  # three, and what was not finished

    def _harm(self, how: How, node: str, pid: int) -> None:
        agent = self._running[node]
        if how is How.RANK:
            if pid:
                os.kill(pid, signal.SIGKILL)
            return
        del self._running[node]
        if how is How.ASKED:
            agent.process.signal(signal.SIGTERM)
            if not self._spares:
                # The node in its place is to serve the ledger, if this one did: at the same port.
                assert agent.process.ended(_ENDS), f"{node} still runs"
        elif how is How.AGENT:
            agent.kill()
        else:
            agent.vanish()

    def _trains(self, nodes: int, *, after: int = 0, not_in: str = "") -> list[Rank]:
        """Wait for a round of so many nodes that has done more than ``after`` steps; its ranks."""

        def there() -> list[Rank]:
            crew = last_round(self.job.folder)
            if not crew or crew[0].round == not_in or len(crew) < crew[0].world:
                return []
            alive = len({one.node for one in crew} & self._running.keys()) == nodes
            return crew if alive and all(len(one.steps) > after for one in crew) else []

        try:
            found: list[Rank] = until(f"{nodes} nodes train", there, 90)
        except TimeoutError:
            print(self.job.told())
            raise
        return found

    def ranks(self) -> list[Rank]:
        """What all ranks of all rounds wrote down."""
        return ranks_of(self.job.folder)


def table(kills: Iterable[Kill]) -> str:
    """The figures of these kills, a line for each way."""
    ways: dict[How, list[Kill]] = defaultdict(list)
    for kill in kills:
        ways[kill.how].append(kill)
    lines = []
    for how, some in sorted(ways.items()):
        redone, seconds = [one.redone for one in some], [one.seconds for one in some]
        later = max(one.redone_later for one in some)
        lines.append(
            f"{how}: {len(some)} kills, {sum(one.rounds for one in some)} rounds; steps redone: "
            f"{max(redone)} at most, {mean(redone):.1f} in the mean, {later} when "
            f"somebody came later; seconds until all ranks run: "
            f"{max(seconds):.1f} at most, {mean(seconds):.1f} in the mean"
        )
    return "\n".join(lines)
