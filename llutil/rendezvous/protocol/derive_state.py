"""What follows at once from a changed view: what is outdated, which clocks run, and when patience
is over.

This module may import nothing but the standard library and the room's values.
"""

from __future__ import annotations

from llutil.rendezvous.protocol.instructions import GaveUp
from llutil.rendezvous.protocol.records import Cause, Report, ReportKind
from llutil.rendezvous.protocol.seal_decision import is_ready
from llutil.rendezvous.protocol.state import State, WorkersState

__all__ = ["settle"]


def settle(state: State, now: float) -> None:
    """Draw the conclusions from what has changed in ``state``, at ``now``."""
    log = state.log
    if state.stage != log.stage:
        state.stage = log.stage
        state.ends, state.backs, state.stops = {}, set(), {}
        state.checked, state.failed_since = frozenset(), None
    if log.running:
        state.ended_since = None
    elif state.ended_since is None:
        state.ended_since = now
    if state.seat and state.idle and (not state.leased or log.is_over(state.seat.stage)):
        state.seat, state.work = None, WorkersState.NONE
    if state.outcome and not _still_counts(state, state.outcome):
        state.outcome = None
    _pass_markers(state)
    _keep_time(state, now)


def _still_counts(state: State, outcome: Report) -> bool:
    """Whether anybody may still ask for ``outcome``.

    After the verdict, nobody needs to hear of a success. Of a failure the others do: what they have
    heard before may only be an echo of it, from a node that had fewer processes to end.
    """
    if not state.leased or outcome.node != state.node:
        return False  # the identity that it happened to is lost
    if state.seat and state.seat.stage == outcome.stage:
        return True
    return outcome.say is ReportKind.FAILED and outcome.stage == state.log.stage


def _pass_markers(state: State) -> None:
    """Go past the end of a generation that is not this node's: everybody had left, or its tokens
    were others.

    A node that waits with another rerun token was started for the next life of the job; nobody but
    its own caller can end it. A success ends whoever waited, whatever its token.
    """
    marker = state.log.marker
    if marker is None or state.met is None or marker.generation <= state.met:
        return
    others = state.node not in marker.nodes and state.profile.token not in marker.tokens
    if marker.by != state.node and (
        marker.cause is Cause.LEFT or (marker.cause is not Cause.SUCCEEDED and others)
    ):
        state.met = marker.generation


def _keep_time(state: State, now: float) -> None:
    log = state.log
    waiting = state.leads and state.members is not None and log.running is None
    if waiting and _ready_count(state) >= state.rules.min_nodes:
        if state.quorum_since is None:
            state.quorum_since = now
    else:
        state.quorum_since = None
    known = state.failed_since is not None or not state.leads
    if not known and any(end.say is ReportKind.FAILED for end in state.ends.values()):
        state.failed_since = now
    if state.wish and state.idle and state.wish_since is None:
        state.wish_since = now
    away = log.running is None or not state.joined or state.suspended(now)
    waits = state.idle and away and state.wish is None
    if waits and state.waiting_since is None:
        state.waiting_since = now
    elif not waits and state.waiting_since is not None:
        state.waited += now - state.waiting_since
        state.waiting_since = None
    since = state.waiting_since
    if since is not None and now >= since + state.patience - state.waited:
        state.wish, state.wish_since = GaveUp(_why_gave_up(state, now)), now


def _ready_count(state: State) -> int:
    busy = state.log.busy
    return sum(is_ready(member.node, busy, state.backs) for member in state.members or ())


def _why_gave_up(state: State, now: float) -> str:
    rules = state.rules
    if not state.identities:
        return f"the ledger did not answer for {state.patience:g} s, and never has; is it there?"
    if not state.joined or state.suspended(now):
        return f"the ledger did not answer for {rules.timeout:g} s"
    if state.members is None:
        known = "another node leads, which alone knows them all"
    else:
        names = ", ".join(member.name for member in state.members)
        known = f"{_ready_count(state)} of {rules.min_nodes} nodes are ready; here: {names}"
    return f"no round after {state.log.stage} began within {rules.timeout:g} s; {known}"
