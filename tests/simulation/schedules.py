"""Random bad days: who arrives when, what breaks, and what the workers do. All of it follows from
one seed.
"""

from __future__ import annotations

import random
from dataclasses import replace
from functools import partial

from llutil.rendezvous.protocol import instructions as do
from llutil.rendezvous.protocol.machine import Machine
from llutil.rendezvous.protocol.parameters import ProtocolParameters
from tests.simulation.growth import add_growth, has_growth
from tests.simulation.host import Host
from tests.simulation.strays import put_stray
from tests.simulation.wishes import add_wishes, has_wishes
from tests.simulation.world import PlannedCrash, World

__all__ = ["play"]

_STEPS = (
    do.TakeLease,
    do.Join,
    do.WatchPredecessor,
    do.WatchMembers,
    do.OpenStore,
    do.Create,
    do.Create,
    do.Create,
    do.StartWorkers,
    do.StopWorkers,
    do.ReadLog,
    do.ReadReports,
)


def play(
    seed: int,
    machine: type[Machine] = Machine,
    *,
    trace: list[str] | None = None,
    disorder: bool = True,
    wishes: bool = True,
    growth: bool = True,
) -> World:
    """Live through the day of ``seed``; what happens is appended to ``trace``.

    ``disorder``: others may write among the run's records, and the store may be full, or go for
    good. All the rest of a day is the same without. ``wishes``: on some days, ranks call ``step``,
    and somebody wishes something of them; the others are the same without. ``growth``: on some
    days, ranks save before anybody new is let in, and more nodes come; the others are the same.

    :raises Broken: a property does not hold.
    """
    rng = random.Random(seed)
    nodes = rng.choice((1, 2, 2, 2, 3, 3, 4, 5))
    mishaps = rng.choice((0, 0, 1, 1, 2, 3))
    slow = not mishaps and rng.random() < 0.3
    rules = _rules(rng, nodes, timeout=40.0 if slow else 150.0)
    world = World(
        rules,
        rng,
        machine=machine,
        delay=rng.choice((0.005, 0.03, 0.03, 0.1)),
        doubt=rng.choice((0.0, 0.0, 0.05, 0.15)),
        lag=rng.choice((0.1, 2.5)),
    )
    world.trace = trace
    # Of its own, so that what other days are like does not depend on it.
    world.torchrun = random.Random(f"{seed} torchrun").random() < 0.15
    if world.torchrun:
        world.rules = rules = replace(rules, max_restarts=None, runs_again=False)
    world.note(
        "world", f"seed {seed}: {nodes} nodes, {rules}, delay {world.delay}, doubt {world.doubt}"
    )
    token = rng.choice(("", "0", "0"))
    indexed = rng.random() < 0.3
    world.work.duration = rng.choice((0.5, 3.0, 6.0))
    world.work.uneven = rng.choice((0.3, 2.0))
    world.work.failures = rng.choice((0, 0, 0, 1, 2))
    world.work.fatal = rng.random() < 0.05
    world.work.fragile = rng.choice((0.0, 0.7, 1.0))
    world.work.slow_stop = rng.choice((0.0, 0.0, 0.0, 6.0))
    spread = rng.choice((0.0, 0.2, 2.0))
    for n in range(nodes):
        index = nodes - n if indexed else None
        world.at(rng.random() * spread, partial(_arrive, world, token, index))
    latecomers = rng.choice((0, 0, 0, 1, 2))
    for _ in range(latecomers):
        world.at(rng.uniform(0.5, 15.0), partial(_arrive, world, token, None))
    if slow:
        world.work.duration = 1.5 * rules.timeout  # who waits beside a round must bear that
    for _ in range(mishaps):
        world.at(rng.uniform(0.0, 15.0), _mishap, world)
    replaced = rng.random() < 0.6
    if rng.random() < 0.5:
        _plan_crash(world, rng.randrange(nodes), replaced)
        mishaps += 1
    stopped = rng.random() < 0.06
    if stopped:
        world.at(rng.uniform(0.1, 12.0), _ask_somebody, world, True)
    enough_budget = (
        rules.max_restarts is None or rules.max_restarts >= world.work.failures + mishaps
    )
    # Without a token, whoever comes after the end begins again, and may be too few.
    hopeful = enough_budget and not stopped and not world.work.fatal and token != ""
    world.properties.hopeful = hopeful and not world.torchrun
    calm = not (mishaps or stopped or world.work.failures or latecomers)
    world.properties.calm = world.torchrun and calm and min(nodes, rules.max_nodes) == nodes
    if disorder:
        _disorder(world, random.Random(f"disorder {seed}"), slow)
    if wishes and has_wishes(seed):
        add_wishes(world, random.Random(f"{seed} wishes"), calm and not disorder)
    if growth and has_growth(seed) and not world.torchrun:
        harm = mishaps or stopped or world.work.failures or disorder
        add_growth(world, random.Random(f"{seed} growth"), token, calm=not harm)
    world.run()
    if rng.random() < 0.3 and not world.store.gone:
        _live_again(world, rng, token)
    return world


def _disorder(world: World, rng: random.Random, slow: bool) -> None:
    for _ in range(rng.choice((0, 0, 0, 1, 3, 8))):
        world.at(rng.uniform(0.0, 15.0), put_stray, world, rng)
    if not slow and rng.random() < 0.25:
        world.at(rng.uniform(0.0, 12.0), _fill, world, rng.choice((1.0, 8.0, 30.0, None)))
    gone = world.gone_rng = random.Random(f"gone {rng.random()}")
    if gone.random() < 0.12:
        world.at(gone.uniform(0.0, 14.0), world.lose_store)


def _fill(world: World, seconds: float | None) -> None:
    """The store has no space left, for so long or for ever."""
    world.note("world", f"== the store is full, for {seconds} s")
    world.full = True
    if seconds is None:
        world.properties.hopeful = False
    else:
        world.at(world.now + seconds, world.make_room)


def _rules(rng: random.Random, nodes: int, timeout: float) -> ProtocolParameters:
    least = rng.randint(1, nodes)
    most = rng.choice((nodes, nodes, nodes + 1, nodes + 2, max(least, nodes - 1)))
    return ProtocolParameters(
        min_nodes=least,
        max_nodes=most,
        max_restarts=rng.choice((0, 1, 2, 10, 10, None)),
        last_call=rng.choice((0.5, 2.0, 4.0)),
        timeout=timeout,
        lease_ttl=6.0,
        gate_timeout=2.0,
    )


def _arrive(world: World, token: str, index: int | None) -> Host:
    return world.arrive(f"n{len(world.hosts)}", token=token, index=index)


def _mishap(world: World) -> None:
    """Something goes wrong, with somebody."""
    rng, living = world.rng, world.living()
    if not living:
        return
    host = rng.choice(living)
    match rng.randrange(8):
        case 0 | 1:
            _crash(world, host, rng.random() < 0.5)
        case 2:
            host.freeze()
            world.at(world.now + rng.choice((1.0, 8.0, 14.0)), host.thaw)
        case 3 | 4:
            host.cut_off()
            world.at(world.now + rng.choice((1.0, 5.0, 9.0, 20.0)), host.reconnect)
        case 5:
            away = rng.choice((1.0, 5.0, 9.0))
            for other in living:  # the store is away, for everybody
                other.cut_off()
                world.at(world.now + away, other.reconnect)
        case 6:
            host.taken_for_dead()
        case _:
            _ask_somebody(world, False)


def _ask_somebody(world: World, stop: bool) -> None:
    if living := world.living():
        linger = world.rng.choice((0.0, 3.0))
        world.rng.choice(living).ask(stop=stop, linger=linger)


def _crash(world: World, host: Host, replaced: bool) -> None:
    host.crash(guarded=world.rng.random() < 0.6)
    if replaced:
        again = partial(_arrive, world, host.profile.token, host.profile.index)
        world.at(world.now + world.rng.uniform(0.1, 10.0), again)


def _plan_crash(world: World, nth: int, replaced: bool) -> None:
    """Somebody crashes right before or after an instruction: the leader at each of its steps,
    anybody at theirs.

    Or, while the leader's write is on its way, somebody else does.
    """
    rng = world.rng
    kind, before = rng.choice(_STEPS), rng.random() < 0.4
    left = [rng.choice((1, 1, 1, 2, 3))]
    leader = rng.random() < 0.7
    another = leader and kind is do.Create and rng.random() < 0.5

    def due(host: Host, instruction: do.Instruction) -> bool:
        if not isinstance(instruction, kind):
            return False
        if leader and not host.machine.state.leads:
            return False
        if not leader and host is not world.hosts[nth % len(world.hosts)]:
            return False
        left[0] -= 1
        return left[0] == 0

    def act(host: Host) -> None:
        others = [other for other in world.living() if other is not host]
        if not another:
            _crash(world, host, replaced)
        elif others:
            _crash(world, rng.choice(others), replaced)

    world.crash_due = PlannedCrash(due, before and not another, rng.random() < 0.3, act)


def _live_again(world: World, rng: random.Random, token: str) -> None:
    """The same run id is used again: nodes that come late, or a rerun that is wanted."""
    again = rng.choice((token, token, "1", ""))
    count = rng.randint(world.rules.min_nodes, world.rules.max_nodes)
    hopeful = again != "" and world.work.failures == 0 and world.crash_due is None
    world.properties.hopeful = world.properties.hopeful and hopeful
    world.properties.veterans = len(world.hosts)
    world.note("world", f"again, under {again!r}, {count} nodes")
    for _ in range(count):
        world.at(world.now + rng.random(), partial(_arrive, world, again, None))
    world.run()
