"""What somebody wishes of the ranks of a world, and when; and crashes in the middle of that."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from llutil.rendezvous.protocol import instructions as do
from llutil.rendezvous.protocol.gate_records import (
    Gate,
    GateAnswer,
    GateDecision,
    Wish,
    WishKind,
)
from tests.simulation.world import PlannedCrash

if TYPE_CHECKING:
    from tests.simulation.host import Host
    from tests.simulation.world import World

__all__ = ["add_wishes", "has_wishes"]

_CHECKPOINT = frozenset({WishKind.CHECKPOINT})
_PAUSE, _RESUME = frozenset({WishKind.PAUSE}), frozenset({WishKind.RESUME})
_STOP = frozenset({WishKind.STOP})
_DEBUG, _DEBUGGED = frozenset({WishKind.DEBUGGER_START}), frozenset({WishKind.DEBUGGER_END})
_KINDS = (
    _CHECKPOINT,
    _CHECKPOINT,
    _CHECKPOINT,
    _STOP,
    _STOP | _CHECKPOINT,
    _PAUSE,
    _PAUSE | _CHECKPOINT,
    _DEBUG,
    frozenset({WishKind.STACKS}),
)
_MOMENTS = (Gate, GateDecision, GateAnswer, Wish, do.RaiseGate, do.OpenGate, do.WatchAnswers)


def has_wishes(seed: int) -> bool:
    """Whether ranks call ``step`` on the day of ``seed``."""
    return random.Random(f"{seed} has wishes").random() < 0.4


def add_wishes(world: World, rng: random.Random, calm: bool) -> None:
    """Decide what is wished of the ranks on a day on which they call ``step``.

    ``calm``: nothing else goes wrong.
    """
    world.steps.rng, world.steps.deaf = rng, 0.04
    world.steps.lockstep = rng.random() < 0.6
    if rng.random() < 0.5:  # long enough for several wishes, one after another
        world.work.duration = max(world.work.duration, 6.0)
    crash = world.crash_due is None and not calm and rng.random() < 0.4
    if crash:
        _plan_crash(world, rng)
        world.properties.calm = False
        if world.rules.max_restarts not in (None, 10):
            world.properties.hopeful = False
    quiet = calm and not world.doubt and not crash and not world.torchrun
    world.properties.gates.calm = quiet and world.delay <= 0.03
    for _ in range(rng.choice((1, 1, 2, 3, 8))):
        world.at(rng.uniform(0.2, 14.0), _wish, world, rng, rng.choice(_KINDS))


def _wish(world: World, rng: random.Random, kinds: frozenset[WishKind]) -> None:
    living = world.living()
    if not living:
        return
    rng.choice(living).wish(kinds, preempted=rng.random() < 0.3)
    if rng.random() < 0.3:  # two at once, at two places
        other = rng.choice(_KINDS)
        rng.choice(living).wish(other)
        kinds |= other
    if WishKind.PAUSE in kinds:
        world.at(world.now + rng.choice((0.1, 6.0)) * rng.random(), _resume, world, rng, 0)
    if WishKind.DEBUGGER_START in kinds:
        world.at(world.now + rng.choice((0.1, 6.0)) * rng.random(), _end_debugger, world, rng)


def _end_debugger(world: World, rng: random.Random) -> None:
    if living := world.living():
        rng.choice(living).wish(_DEBUGGED)


def _resume(world: World, rng: random.Random, tries: int) -> None:
    """Somebody wants the ranks to go on, and says so until they do, or, if the store takes nothing
    any more, ends the job.
    """
    living = world.living()
    if tries > 20 and (world.full or world.store.gone):
        for host in living:
            host.ask(stop=True)
        return
    if living and (tries == 0 or world.steps.paused):
        rng.choice(living).wish(_RESUME)
    if living and (tries < 10 or world.steps.paused):
        world.at(world.now + 3.0, _resume, world, rng, tries + 1)


def _arrive(world: World, token: str) -> None:
    world.arrive(f"n{len(world.hosts)}", token=token)


def _plan_crash(world: World, rng: random.Random) -> None:
    """Somebody crashes right before or after something that concerns a gate; or then the ledger is
    away, for one node or for all.
    """
    moment, before = rng.choice(_MOMENTS), rng.random() < 0.4
    left = [rng.choice((1, 1, 2, 3))]
    away, everybody = rng.choice((0.0, 0.0, 3.0, 30.0)), rng.random() < 0.5
    before = before and not away

    def due(host: Host, instruction: do.Instruction) -> bool:
        found = isinstance(instruction, moment) or (
            isinstance(instruction, do.Create) and isinstance(instruction.records[0], moment)
        )
        left[0] -= found
        return found and left[0] == 0

    def act(host: Host) -> None:
        if away:
            for one in world.living() if everybody else [host]:
                one.cut_off()
                world.at(world.now + away, one.reconnect)
            return
        # Right before an instruction, it is the host that was to carry it out.
        victim = host if before or rng.random() < 0.7 else rng.choice(world.living())
        victim.crash(guarded=rng.random() < 0.6)
        if rng.random() < 0.6:
            world.at(world.now + rng.uniform(0.1, 10.0), _arrive, world, victim.profile.token)

    world.crash_due = PlannedCrash(due, before, rng.random() < 0.3, act)
