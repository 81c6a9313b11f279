"""When a node of a gang gives its slot back, and when it comes again.

Nodes that wait for others hold slots that the others may need: two gangs in a small pool could
block each other for ever. So a node whose job does not form ends, and comes back later, without
using up a try. Two rules keep this from going on for ever:

* A sibling that has a slot is waited for, as long as a start may take, whether or not it has joined
  the rendezvous yet. Else nodes that start slowly would miss each other.
* The nodes of a gang come back at the same moments, which are its own. Else they would hardly ever
  have all their slots at the same time, and two gangs would take the slots from each other for
  ever.

The functions here only compute: times and randomness are arguments.
"""

from __future__ import annotations

import datetime as dt
import random
from collections.abc import Mapping
from dataclasses import dataclass

from airflow_provider.gang.siblings import (
    GangHopeless,
    GangView,
    absent_nodes,
    peers_succeeded,
    started_nodes,
    waits_in_vain,
)
from llutil.errors import RendezvousError, RendezvousTimeoutError, ServerLostError

__all__ = [
    "GiveSlotBack",
    "KeepSlot",
    "RescheduleAt",
    "SlotTimeout",
    "TimeIsUp",
    "after_failed_rendezvous",
    "decide_slot",
    "next_attempt",
    "slot_timeout",
]

# Seconds. If a task is due again before the scheduler has learnt that its process has ended, the
# scheduler takes it for killed, and the task fails (Airflow 3.3.2). A busy scheduler learns it only
# after some seconds.
_SOONEST = 10.0
# Seconds that a sibling with a slot gets at least until it has joined the rendezvous. An agent may
# take so long until it says hello.
_START = 120.0
# A node that has come back so often meets its siblings once in 2 ** _RAREST timeouts.
_RAREST = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotTimeout:
    """The seconds that a node without a round holds its slot.

    ``absent`` count while too few siblings have a slot, ``started`` while enough of them have one:
    the latter is the timeout of the node's rendezvous, which also knows of rounds elsewhere.
    """

    absent: float
    started: float


def slot_timeout(timeout: float, draw: float) -> SlotTimeout:
    """How long this node holds its slot, by the ``timeout`` of its rendezvous.

    ``draw``, a number from 0 to 1, makes it up to a quarter less. If all nodes that block each
    other gave up at the same time, those that come next would block each other as well.
    """
    absent = timeout * (1 - draw / 4)
    return SlotTimeout(absent=absent, started=absent + max(timeout, _START))


@dataclass(frozen=True, slots=True)
class KeepSlot:
    """Wait on. ``started`` are the siblings with a slot, once it is them who are waited for."""

    started: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class GiveSlotBack:
    """Come again later. ``absent`` are the nodes without a slot, and what Airflow says of them; it
    is empty if enough nodes had a slot, but no round began.
    """

    absent: Mapping[int, str | None]


def decide_slot(
    view: GangView, waited: float, timeout: SlotTimeout
) -> KeepSlot | GiveSlotBack | GangHopeless:
    """Whether a node that has been without a round for ``waited`` seconds keeps its slot until its
    rendezvous ends.
    """
    if hopeless := waits_in_vain(view):
        return hopeless
    if waited < timeout.absent or peers_succeeded(view):
        return KeepSlot()
    absent = absent_nodes(view)
    if absent is not None:
        return GiveSlotBack(absent)
    return KeepSlot(started_nodes(view))


def after_failed_rendezvous(
    view: GangView | None, error: RendezvousError
) -> GiveSlotBack | GangHopeless | None:
    """Whether the node comes again; None if ``error`` is to count as a failed try.

    It does not count if it is the siblings' doing: they did not come in time, or the one that
    serves the ledger has gone. ``view`` is None if Airflow does not say how they are.
    """
    if view is not None and (hopeless := waits_in_vain(view)):
        return hopeless
    absent = None if view is None else absent_nodes(view)
    if absent is not None:
        return GiveSlotBack(absent)
    return GiveSlotBack({}) if isinstance(error, RendezvousTimeoutError | ServerLostError) else None


@dataclass(frozen=True, slots=True)
class RescheduleAt:
    """Come back at ``when``."""

    when: dt.datetime


@dataclass(frozen=True, slots=True)
class TimeIsUp:
    """The gang has no time left to form."""


def next_attempt(
    *,
    now: dt.datetime,
    began: dt.datetime,
    gang: str,
    timeout: float,
    gang_timeout: float,
    attempts: int,
) -> RescheduleAt | TimeIsUp:
    """Whether a node whose job did not form comes back, and when.

    ``began`` is since when the gang has tried to form; it has ``gang_timeout`` seconds for that.
    ``timeout`` is that of its rendezvous. ``attempts`` is how often the node has come back already.

    It comes back at the next moment of ``gang``, the gang's name, as its siblings do; it stays away
    for ten seconds at least. The moments are random, and other gangs have others. There is one in
    each timeout. A node that has come back before uses only one in two, and later one in four, so
    that there is room between them for other gangs; but all nodes share those.
    """
    left = gang_timeout - (now - began).total_seconds()
    if left <= 0:
        return TimeIsUp()
    moment = _next_moment(gang, now.timestamp(), timeout, 2 ** min(attempts, _RAREST))
    away = max(min(moment - now.timestamp(), left), _SOONEST)
    return RescheduleAt(now + dt.timedelta(seconds=away))


def _next_moment(gang: str, now: float, timeout: float, rarity: int) -> float:
    """The next moment of ``gang`` after ``now``, in seconds: one in each ``rarity`` timeouts.

    Those of a rarity are also moments of each lower one, since the greatest of four numbers is also
    the greatest of the two next to each other among them.
    """

    def drawn(number: int) -> tuple[float, float]:
        numbers = random.Random(f"{gang} {number}")  # noqa: S311 - jitter is no secret
        return numbers.random(), numbers.random()

    number = int(now // timeout)
    while True:
        rank, fraction = drawn(number)
        moment = (number + fraction) * timeout
        first = number - number % rarity
        if moment > now and rank == max(drawn(n)[0] for n in range(first, first + rarity)):
            return moment
        number += 1
