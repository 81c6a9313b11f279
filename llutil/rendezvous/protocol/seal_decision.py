"""Decides who is in the next round, when it is sealed, and the order of its ranks. Only the leader
asks.

Rules 3, 4 and 7 of the protocol leave five choices open. They are made as follows:

* A living member of the last round has priority. Even if enough new nodes are there to fill the
  round, the leader waits for such members until the last call is over. Else a node that was slow
  to stop its workers would lose its seat.
* A leader seals only rounds that it is in itself. It hosts the round's TCPStore, so its own loss
  must be a reason to end that round.
* A failure is charged if every member came back, or still lives one and a half leases after the
  verdict. If only coming back counted, one node that is always slow would make every failure free,
  and the job endless.
* A failure for which no restart is left ends the job on the same condition: when every member came
  back, or one and a half leases after the verdict (``ProtocolParameters.loss_known_after``). The
  leader waits that long only for a member that is slow to come back, or dead.
* The restart count begins at 0 again once no member of the last round lives any more.

A decision here is a function of its arguments. This module may import nothing but the standard
library and the room's values.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from llutil.rendezvous.protocol.parameters import ProtocolParameters
from llutil.rendezvous.protocol.presence import Presence, named
from llutil.rendezvous.protocol.records import Assignment, Cause, Member, Seat
from llutil.rendezvous.protocol.run_history import RunHistory

__all__ = [
    "Incompatible",
    "NoRoundFollows",
    "NotYet",
    "Seal",
    "SealInput",
    "decide_seal",
    "restarts_after",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class SealInput:
    """What the leader knows while no round runs.

    ``me`` is the leader. ``done`` are the newest round's members that have succeeded and do not run
    again. ``quorum_since``: since when ``min_nodes`` nodes have been ready; None if they are not.
    ``ended_since``: since when the newest round's verdict has been known. Both are times of the
    leader's own clock.
    """

    me: str
    parameters: ProtocolParameters
    log: RunHistory
    presence: Presence
    done: AbstractSet[str] = frozenset()
    quorum_since: float | None
    ended_since: float


@dataclass(frozen=True, slots=True)
class Seal:
    """Seal the round with these seats, in this order of ranks."""

    seats: tuple[Seat, ...]
    restarts: int
    away: tuple[str, ...]
    why: str


@dataclass(frozen=True, slots=True)
class NotYet:
    """It is too early to decide. Ask again after the next observation, or at ``until``."""

    until: float
    why: str


@dataclass(frozen=True, slots=True)
class Incompatible:
    """The nodes' configurations do not fit together."""

    why: str


@dataclass(frozen=True, slots=True)
class NoRoundFollows:
    """The last round is over, and no other can follow it in this generation."""

    why: str


def decide_seal(known: SealInput, now: float) -> Seal | NotYet | Incompatible | NoRoundFollows:
    """Whether the leader seals the next round at ``now``, and with whom."""
    parameters, presence, last = known.parameters, known.presence, known.log.last
    if last is not None and _is_last_failure(known, last):
        return _on_last_failure(known, last, now)
    if last is not None and (too_few := _too_few_are_left(known, last)):
        return NoRoundFollows(too_few)
    if known.me not in presence.living or known.me in presence.unready:
        return NotYet(float("inf"), "this node, which leads, still has workers of an earlier round")
    ready = presence.ready_count
    if ready < parameters.min_nodes or known.quorum_since is None:
        return NotYet(float("inf"), f"{ready} of {parameters.min_nodes} nodes are here")
    missing = presence.unready.intersection(last.node_set) if last else set()
    survivors = presence.living.intersection(last.node_set) if last else frozenset()
    until = known.quorum_since + parameters.last_call
    if missing and _failed(known.log):
        until = max(until, known.ended_since + parameters.loss_known_after)
    if not missing and ready >= parameters.max_nodes:
        why = f"all {parameters.max_nodes} places are taken"
    elif not missing and survivors:
        why = f"all {len(survivors)} survivors of {known.log.stage} are back"
    elif now >= until:
        why = f"the last call of {parameters.last_call:g} s is over"
    else:
        wait_for = f"; still stopping workers: {named(missing)}" if missing else ""
        return NotYet(
            until, f"last call, {ready} of {parameters.max_nodes} nodes are here{wait_for}"
        )
    chosen = _chosen(known)
    if problem := _unreachable(chosen):
        return Incompatible(problem)
    away = tuple(sorted(presence.unready))
    restarts = restarts_after(known.log, presence.living)
    return Seal(_ranked(chosen, last), restarts, away, f"{why}: {len(chosen)} nodes")


def _is_last_failure(known: SealInput, last: Assignment) -> bool:
    """Whether the next round would need one more restart, and none is left, as far as the members
    show now.
    """
    charged = restarts_after(known.log, known.presence.living) > last.restarts
    return charged and not known.parameters.budget_left(last.restarts)


def _on_last_failure(known: SealInput, last: Assignment, now: float) -> NotYet | NoRoundFollows:
    away = last.node_set.difference(known.presence.back)
    until = known.ended_since + known.parameters.loss_known_after
    if away and now < until:
        return NotYet(
            until, f"no restarts are left; lost, or still stopping workers: {named(away)}"
        )
    return NoRoundFollows(f"all {last.restarts} restarts are used up")


def _too_few_are_left(known: SealInput, last: Assignment) -> str | None:
    """Why no round can begin any more for want of nodes; None if one can.

    A lost member may come back under a new name, but a node that is done does not come back.
    Without a living member of the last round, the nodes that are here came for another life of the
    job.
    """
    done = last.node_set.intersection(known.done)
    if not done:
        return None
    living = known.presence.living
    possible = (living | last.node_set).difference(done)
    survivors = (living & last.node_set).difference(done)
    if not survivors or len(possible) >= known.parameters.min_nodes:
        return None
    return (
        f"{named(done)} had succeeded, and so {len(possible)} of {known.parameters.min_nodes} "
        "nodes are left for another round"
    )


def restarts_after(log: RunHistory, living: AbstractSet[str]) -> int:
    """How many failures are charged so far, for the next round's assignment.

    A failure is charged only if no member of the round was lost. A lost node makes its peers'
    workers fail, and a change of the membership costs no restart.
    """
    last = log.last
    if last is None:
        return 0
    if last.node_set.isdisjoint(living):
        return 0
    charged = _failed(log) and last.node_set <= living
    return last.restarts + charged


def _failed(log: RunHistory) -> bool:
    verdict = log.verdict_on(log.stage)
    return verdict is not None and verdict.cause is Cause.FAILED


def _chosen(known: SealInput) -> list[Member]:
    """The members of the next round, in order of arrival. If too many are ready, the leader comes
    first, then members of the last round, then the others by arrival.
    """
    last, ready = known.log.last, known.presence.ready
    earlier = last.node_set if last else frozenset[str]()
    ranked = sorted(ready, key=lambda member: (member.node != known.me, member.node not in earlier))
    places = {member.node for member in ranked[: known.parameters.max_nodes]}
    return [member for member in ready if member.node in places]


def _ranked(chosen: Sequence[Member], last: Assignment | None) -> tuple[Seat, ...]:
    """Seats in the order of ranks: preferred index, then the last round's order, then arrival.

    The last round's order is looked up by name, since a node may have come back under a new
    identity.
    """
    position = {seat.name: n for n, seat in enumerate(last.seats)} if last else {}

    def key(member: Member) -> tuple[bool, int, int]:
        index = 0 if member.index is None else member.index
        return member.index is None, index, position.get(member.name, len(position))

    return tuple(
        Seat(
            node=member.node,
            name=member.name,
            address=member.address,
            role=member.role,
            nproc=member.nproc,
            token=member.token,
            label=member.label,
        )
        for member in sorted(chosen, key=key)  # stable: what is equal stays in order of arrival
    )


def _unreachable(chosen: Sequence[Member]) -> str | None:
    """Why one of ``chosen`` cannot be reached by the others, or None. Others on the same host only
    can reach a loopback address.
    """
    hosts = {member.host for member in chosen}
    if len(hosts) < 2:
        return None
    for member in chosen:
        if _is_loopback(member.address):
            other = next(peer for peer in chosen if peer.host != member.host)
            return (
                f"node {member.name!r} on host {member.host!r} offers the loopback address "
                f"{member.address!r}, which "
                f"{other.name!r} on host {other.host!r} cannot reach: set local_addr on "
                f"{member.host!r}, or name the "
                "ledger by an address that is not a loopback one"
            )
    return None


def _is_loopback(address: str) -> bool:
    if address == "localhost":
        return True
    try:
        return ipaddress.ip_address(address.strip("[]")).is_loopback
    except ValueError:
        return False  # it is a host name, which is not resolved here
