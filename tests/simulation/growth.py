"""Days on which ranks save before anybody new is let in: who comes, who leaves again, and what the
ranks make of it.
"""

from __future__ import annotations

import random
from dataclasses import replace
from typing import TYPE_CHECKING

from llutil.rendezvous.protocol import instructions as do
from llutil.rendezvous.protocol.gate_records import Gate, GateDecision, WishKind
from llutil.rendezvous.protocol.records import Verdict
from tests.simulation.world import PlannedCrash

if TYPE_CHECKING:
    from tests.simulation.host import Host
    from tests.simulation.world import World

__all__ = ["add_growth", "has_growth"]

_MOMENTS = (Gate, GateDecision, Verdict, do.RaiseGate, do.OpenGate, do.ReadReports)


def has_growth(seed: int) -> bool:
    """Whether ranks save before anybody new is let in on the day of ``seed``."""
    return random.Random(f"{seed} has growth").random() < 0.3


def add_growth(world: World, rng: random.Random, token: str, *, calm: bool) -> None:
    """Decide who comes on such a day. ``calm``: nothing else goes wrong."""
    world.rules = replace(
        world.rules,
        max_nodes=world.rules.max_nodes + rng.choice((1, 1, 2, 3)),
        saves_before_growth=True,
        growth_timeout=rng.choice((3.0, 8.0, 8.0, 8.0)),
    )
    if world.steps.rng is None:
        world.steps.rng, world.steps.lockstep = rng, rng.random() < 0.6
    world.steps.steady = rng.random() < 0.6
    world.work.duration = max(world.work.duration, rng.choice((6.0, 12.0, 20.0)))
    saves = world.saves
    saves.rng = rng
    saves.seconds = rng.choice((0.02, 0.02, 0.3, 0.3, 3.0, 10.0))
    saves.fails = rng.choice((0.0, 0.0, 0.0, 0.4))
    saves.unsaid = rng.choice((0.0, 0.0, 0.0, 0.3))
    crash = not calm and world.crash_due is None and rng.random() < 0.4
    if crash:
        _plan_crash(world, rng)
    elif not calm:
        crash = rng.random() < 0.5
    if crash:
        world.properties.hopeful = False
    for _ in range(rng.choice((1, 1, 2, 3))):
        world.at(rng.uniform(1.0, 20.0), _come, world, rng, token, crash, rng.random() < 0.3)
    if rng.random() < 0.2:  # somebody comes and leaves, again and again
        for n in range(12):
            world.at(1.0 + 0.8 * n, _come, world, rng, token, crash, True)


def _come(world: World, rng: random.Random, token: str, crashes: bool, leaves: bool) -> None:
    host = world.arrive(f"n{len(world.hosts)}", token=token)
    if rng.random() < 0.12:  # somebody wants the job to end in that moment
        world.at(world.now + 0.6 * rng.random(), _stop, world, rng)
    if leaves:
        world.at(world.now + rng.choice((0.1, 0.6, 4.0)) * rng.random(), _go, host, crashes)


def _stop(world: World, rng: random.Random) -> None:
    if running := [host for host in world.living() if host.running]:
        rng.choice(running).wish(frozenset({WishKind.STOP}))


def _go(host: Host, crashes: bool) -> None:
    if crashes:
        host.crash(guarded=True)
    else:
        host.ask(stop=False)


def _plan_crash(world: World, rng: random.Random) -> None:
    """The leader, or somebody else, crashes right before or after something that concerns the
    growth; or then the ledger is away.
    """
    moment, before = rng.choice(_MOMENTS), rng.random() < 0.4
    left = [rng.choice((1, 1, 2, 3))]
    away = rng.choice((0.0, 0.0, 3.0, 9.0))
    before = before and not away

    def due(host: Host, instruction: do.Instruction) -> bool:
        growing = host.machine.state.growth.since is not None
        found = growing and (
            isinstance(instruction, moment)
            or (isinstance(instruction, do.Create) and isinstance(instruction.records[0], moment))
        )
        left[0] -= found
        return found and left[0] == 0

    def act(host: Host) -> None:
        if away:
            for one in world.living() if rng.random() < 0.5 else [host]:
                one.cut_off()
                world.at(world.now + away, one.reconnect)
            return
        victim = host if before or rng.random() < 0.6 else rng.choice(world.living())
        victim.crash(guarded=rng.random() < 0.6)

    world.crash_due = PlannedCrash(due, before, rng.random() < 0.3, act)
