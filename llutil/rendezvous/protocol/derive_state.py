"""Updates what follows from a changed state: drops what is outdated, starts and stops timers, and
gives up when a timer is over.

This module may import nothing but the standard library and the room's values.
"""

from __future__ import annotations

from llutil.rendezvous.protocol.instructions import GaveUp, Left
from llutil.rendezvous.protocol.presence import Presence, named
from llutil.rendezvous.protocol.records import Cause, Report, ReportKind
from llutil.rendezvous.protocol.round_reports import RoundReports
from llutil.rendezvous.protocol.state import State, WorkersState

__all__ = ["derive_state"]

_FOREVER = float("inf")


def derive_state(state: State, now: float) -> None:
    """Update the fields of ``state`` that follow from the others, at ``now``."""
    log = state.log
    if state.stage != log.stage:
        state.stage = log.stage
        state.reports = RoundReports(log.last.node_set if log.last else frozenset())
        state.checked_nodes, state.failed_since = frozenset(), None
    members = state.members or ()
    if not state.presence.shows(members, log.busy):
        state.presence = Presence(members, log.busy, state.reports.back)
    if log.running:
        state.ended_since = None
    elif state.ended_since is None:
        state.ended_since = now
    if state.own_round and state.idle and (not state.leased or log.is_over(state.own_round.stage)):
        state.own_round, state.workers = None, WorkersState.NONE
    if state.outcome and not _still_counts(state, state.outcome):
        state.outcome = None
    _ignore_others_generations(state)
    _update_timers(state, now)


def _still_counts(state: State, outcome: Report) -> bool:
    """Whether ``outcome`` should still be reported.

    After the verdict, nobody needs a report of success, unless it means that this node does not run
    again. A failure is still reported: what the others have heard so far may be only an echo of it,
    which another node reported earlier.
    """
    if not state.leased or outcome.node != state.node:
        return False  # the identity that it happened to is lost
    if state.own_round and state.own_round.stage == outcome.stage:
        return True
    wanted = outcome.say is ReportKind.FAILED or not state.parameters.runs_again
    return wanted and outcome.stage == state.log.stage


def _ignore_others_generations(state: State) -> None:
    """Ignore the end of a generation that is not this node's: all its nodes had left, or none had
    this node's rerun token.

    A node that waits with another rerun token was started for the next generation; only its own
    caller can end it. But a success ends every node that waits, whatever its token.
    """
    marker = state.log.marker
    if (
        marker is None
        or state.ignored_generation is None
        or marker.generation <= state.ignored_generation
    ):
        return
    others = state.node not in marker.nodes and state.profile.token not in marker.tokens
    if marker.by != state.node and (
        marker.cause is Cause.LEFT or (marker.cause is not Cause.SUCCEEDED and others)
    ):
        state.ignored_generation = marker.generation


def _update_timers(state: State, now: float) -> None:
    log = state.log
    waiting = state.leads and state.members is not None and log.running is None
    if waiting and state.presence.ready_count >= state.parameters.min_nodes:
        if state.quorum_since is None:
            state.quorum_since = now
    else:
        state.quorum_since = None
    if state.failed_since is None and state.leads and state.reports.failure:
        state.failed_since = now
    if state.wanted_end and state.idle:
        if _stays_for_its_round(state, now):
            state.wanted_end_since = None
        elif state.wanted_end_since is None:
            state.wanted_end_since = now
    unheard = state.unheard(now)
    if unheard and state.unheard_since is None:
        state.unheard_since = now
    elif not unheard:
        state.unheard_since = None
    waits = state.idle and (log.running is None or unheard) and state.wanted_end is None
    if waits and state.waiting_since is None:
        state.waiting_since = now
    elif not waits and state.waiting_since is not None:
        state.waited += now - state.waiting_since
        state.waiting_since = None
    if now >= state.gives_up_at or (state.ledger_gone and waits):
        state.wanted_end, state.wanted_end_since = _gave_up(state, now), now


def _stays_for_its_round(state: State, now: float) -> bool:
    """Whether a leader that was asked to leave stays without a deadline: the others of its round,
    whose store it hosts, still run.
    """
    if not isinstance(state.wanted_end, Left) or state.linger < _FOREVER:
        return False
    runs = state.leads and state.log.running is not None and not state.is_alone
    return runs and not state.unheard(now)


def _gave_up(state: State, now: float) -> GaveUp:
    parameters = state.parameters
    if state.ledger_gone:
        why = f"the ledger has gone for good: {state.ledger_gone}"
        return GaveUp(why, ledger_away=True, gone=True)
    if not state.identities:
        limit = state.wait_limit
        why = f"the ledger did not answer for {limit:g} s, and never has; is it there?"
        return GaveUp(why, ledger_away=True)
    if state.unheard(now):
        limit = parameters.timeout
        if state.has_failed_for_good:
            limit = min(limit, parameters.report_limit)
        why = f"the ledger did not answer for {limit:g} s"
        if state.joined and not state.suspended(now):
            why = f"the ledger answered, but took nothing that was written for {limit:g} s"
        return GaveUp(why, ledger_away=True)
    if state.members is None:
        known = "another node leads, which alone knows them all"
    else:
        ready, names = state.presence.ready_count, named(one.name for one in state.members)
        known = f"{ready} of {parameters.min_nodes} nodes are ready; here: {names}"
    return GaveUp(
        f"no round after {state.log.stage} began within {parameters.timeout:g} s; {known}"
    )
