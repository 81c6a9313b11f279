"""Records of others: what somebody who is no node of a run puts among its records."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from llutil.rendezvous.protocol.record_codec import VERSION, encode
from llutil.rendezvous.protocol.records import Cause, ReportKind, Stage
from tests.simulation.store import KEYS
from tests.support.rendezvous_values import marker, report, round_of, verdict

if TYPE_CHECKING:
    from tests.simulation.world import World

__all__ = ["put_stray"]

_GARBAGE = (
    b"\x00\xff",
    b"{",
    b"[]",
    b'{"name":"web-1","ready":true}',
    b'{"version":%d,"kind":"diary","generation":1,"round":1}' % VERSION,
    encode(report("x", ReportKind.BACK, (77, 7))),
)
_NEWER = b'{"version":%d,"kind":"diary","generation":1,"round":1}' % (VERSION + 1)


def put_stray(world: World, rng: random.Random) -> None:
    """Put one, under a key that the run uses or will use, or under any other."""
    store = world.store
    key = _key(world, rng)
    # A node that comes into a run without members takes a newer log for what it looks like.
    newer = bool(store.members) and rng.random() < 0.3
    value = _NEWER if newer else rng.choice(_GARBAGE)
    lease = "somebody's" if rng.random() < 0.5 else ""
    world.note("world", f"== somebody writes {value!r} under {key}, lease {lease!r}")
    store.stray(key, value, lease)


def _key(world: World, rng: random.Random) -> str:
    generation, round_ = world.store.log().stage
    stage = rng.choice((Stage(generation, round_), Stage(generation, round_ + 1)))
    place = (stage.generation, max(1, stage.round))
    node = rng.choice(sorted(world.store.members) or ["x.1"]).removesuffix(".1")
    folder = rng.choice((KEYS.members, KEYS.log, KEYS.reports(stage)))
    match rng.randrange(7):
        case 0:
            return KEYS.members + rng.choice(("note", "web-1", "a b"))
        case 1:
            return KEYS.key(round_of("a", place))
        case 2:
            return KEYS.key(verdict(Cause.FAILED, place))
        case 3:
            return KEYS.key(marker(Cause.FAILED, place))
        case 4:
            return KEYS.key(report(node, rng.choice((*ReportKind,)), stage))
        case 5:
            return f"{KEYS.log}{rng.choice(('999999.marker', '000099.000001.assignment'))}"
        case _:
            return f"{folder}note-{rng.randrange(3)}"
