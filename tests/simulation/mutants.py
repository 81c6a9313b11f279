"""The protocol, broken on purpose: each mutant replaces one decision, and names the properties that
must notice.

A mutant is installed by pytest's ``monkeypatch``; the product has no switch for any of this.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from dataclasses import dataclass, replace
from typing import Any

from msgspec import structs
from pytest import MonkeyPatch  # noqa: PT013 - a type, and nothing else of pytest

from llutil.ledgers.protocol import Created as CreatedInStore
from llutil.ledgers.protocol import Exists, GuardGone
from llutil.rendezvous.driver.record_writer import RecordWriter
from llutil.rendezvous.driver.version_check import VersionCheck
from llutil.rendezvous.protocol import (
    apply_observation,
    derive_state,
    end_without_ledger,
    leader_decisions,
    machine,
    node_decisions,
    seal_decision,
    verdict_decision,
)
from llutil.rendezvous.protocol import instructions as do
from llutil.rendezvous.protocol.observations import Created, Unanswered
from llutil.rendezvous.protocol.parameters import ProtocolParameters
from llutil.rendezvous.protocol.record_codec import ForeignRecord
from llutil.rendezvous.protocol.records import (
    Assignment,
    Cause,
    RankAssignment,
    Record,
    Report,
    ReportKind,
    Stage,
    Verdict,
)
from llutil.rendezvous.protocol.round_reports import RoundReports
from llutil.rendezvous.protocol.run_history import RunHistory
from llutil.rendezvous.protocol.seal_decision import NotYet, Seal, SealInput
from llutil.rendezvous.protocol.state import State, WorkersState
from tests.simulation.gate_mutants import GATE_MUTANTS
from tests.simulation.growth_mutants import GROWTH_MUTANTS
from tests.simulation.store import Store

__all__ = ["MUTANTS", "Mutant"]

_FOREVER = float("inf")


@dataclass(frozen=True, slots=True)
class Mutant:
    """``install`` breaks the protocol; one of the properties ``noticed_by`` must see it, on days
    with or without ``disorder`` in the store, ``wishes``, and ``growth`` after a checkpoint.
    """

    name: str
    install: Callable[[MonkeyPatch], None]
    noticed_by: frozenset[str]
    disorder: bool
    wishes: bool = False
    growth: bool = False


MUTANTS: list[Mutant] = []


def _mutant(
    *noticed_by: str, disorder: bool = False
) -> Callable[[Callable[[MonkeyPatch], None]], None]:
    def register(install: Callable[[MonkeyPatch], None]) -> None:
        name = install.__name__.strip("_").replace("_", " ")
        MUTANTS.append(Mutant(name, install, frozenset(noticed_by), disorder))

    return register


def _with_seal_input(patch: MonkeyPatch, change: Callable[[SealInput], SealInput]) -> None:
    real = seal_decision.decide_seal
    patch.setattr(leader_decisions, "decide_seal", lambda known, now: real(change(known), now))


def _with_verdict_input(
    patch: MonkeyPatch,
    change: Callable[[verdict_decision.VerdictInput], verdict_decision.VerdictInput],
) -> None:
    real = verdict_decision.decide_verdict
    patch.setattr(leader_decisions, "decide_verdict", lambda known, now: real(change(known), now))


def _with_living(
    known: verdict_decision.VerdictInput, more: frozenset[str]
) -> verdict_decision.VerdictInput:
    presence = copy(known.presence)
    presence.living |= more
    return replace(known, presence=presence)


@_mutant("size")
def _one_node_is_enough(patch: MonkeyPatch) -> None:
    def change(known: SealInput) -> SealInput:
        since = known.ended_since if known.quorum_since is None else known.quorum_since
        return replace(known, parameters=replace(known.parameters, min_nodes=1), quorum_since=since)

    _with_seal_input(patch, change)


@_mutant("size")
def _everybody_who_is_here_gets_in(patch: MonkeyPatch) -> None:
    _with_seal_input(
        patch, lambda known: replace(known, parameters=replace(known.parameters, max_nodes=99))
    )


@_mutant("survivors get in")
def _the_quorum_is_sealed_at_once(patch: MonkeyPatch) -> None:
    def change(known: SealInput) -> SealInput:
        return replace(known, quorum_since=known.quorum_since and -_FOREVER)

    _with_seal_input(patch, change)


@_mutant("survivors get in")
def _strangers_take_the_places_of_survivors(patch: MonkeyPatch) -> None:
    real = seal_decision.decide_seal

    def decide(known: SealInput, now: float) -> Any:
        decision = real(known, now)
        ready = {member.node for member in known.presence.ready}
        full = len(ready) >= known.parameters.max_nodes
        if isinstance(decision, NotYet) and full and known.me in ready:
            hasty = real(replace(known, quorum_since=-_FOREVER, ended_since=-_FOREVER), now)
            return hasty if isinstance(hasty, Seal) else decision
        return decision

    patch.setattr(leader_decisions, "decide_seal", decide)


@_mutant("one open generation", "one membership", "true verdicts", "waits end", "jobs finish")
def _a_new_leader_trusts_what_it_has_seen(patch: MonkeyPatch) -> None:
    real = leader_decisions.next_leader_step

    def next_leader_step(state: State, now: float) -> Any:
        state.log_read_as_leader = True
        return real(state, now)

    patch.setattr(machine, "next_leader_step", next_leader_step)


@_mutant("lost members end rounds", "waits end")
def _only_a_loss_after_the_seal_counts(patch: MonkeyPatch) -> None:
    seen: dict[int, tuple[Assignment, frozenset[str]]] = {}

    def change(known: verdict_decision.VerdictInput) -> verdict_decision.VerdictInput:
        missing = known.round.node_set - known.presence.living
        _, never = seen.setdefault(id(known.round), (known.round, missing))
        return _with_living(known, never)

    _with_verdict_input(patch, change)


@_mutant("lost members end rounds", "waits end")
def _a_member_that_failed_to_report_is_awaited(patch: MonkeyPatch) -> None:
    _with_verdict_input(patch, lambda known: _with_living(known, known.round.node_set))


@_mutant("true verdicts")
def _reports_are_not_read_again_before_a_loss(patch: MonkeyPatch) -> None:
    _with_verdict_input(patch, lambda known: replace(known, checked=frozenset(known.round.nodes)))


@_mutant("true verdicts")
def _newcomers_come_in_after_a_success(patch: MonkeyPatch) -> None:
    real = verdict_decision.newcomers

    def newcomers(running: Assignment, presence: Any, reports: Any, most: int) -> list[str]:
        return real(running, presence, RoundReports(), most)

    patch.setattr(verdict_decision, "newcomers", newcomers)


@_mutant("budget")
def _membership_changes_are_charged(patch: MonkeyPatch) -> None:
    def restarts_after(log: RunHistory, living: Any) -> int:
        return log.last.restarts + 1 if log.last else 0

    patch.setattr(seal_decision, "restarts_after", restarts_after)


@_mutant("budget")
def _failures_are_charged_though_a_member_was_lost(patch: MonkeyPatch) -> None:
    def restarts_after(log: RunHistory, living: Any) -> int:
        verdict = log.verdict_on(log.stage)
        failed = verdict is not None and verdict.cause is Cause.FAILED
        return log.last.restarts + failed if log.last else 0

    patch.setattr(seal_decision, "restarts_after", restarts_after)


@_mutant("budget")
def _the_last_failure_ends_the_job_at_once(patch: MonkeyPatch) -> None:
    real = seal_decision._on_last_failure
    patch.setattr(
        seal_decision, "_on_last_failure", lambda known, *rest: real(known, rest[0], _FOREVER)
    )


@_mutant("failures end rounds", "waits end")
def _a_last_failure_is_kept_quiet(patch: MonkeyPatch) -> None:
    real = verdict_decision.decide_verdict

    def decide_verdict(known: verdict_decision.VerdictInput, now: float) -> Any:
        found = real(known, now)
        last = not known.parameters.budget_left(known.round.restarts)
        failed = isinstance(found, Verdict) and found.cause is Cause.FAILED
        return NotYet(_FOREVER, "hush") if last and failed else found

    patch.setattr(leader_decisions, "decide_verdict", decide_verdict)


@_mutant("told failures")
def _a_verdict_forgets_what_went_wrong(patch: MonkeyPatch) -> None:
    real = verdict_decision.decide_verdict

    def decide_verdict(known: verdict_decision.VerdictInput, now: float) -> Any:
        found = real(known, now)
        return structs.replace(found, job_failure=None) if isinstance(found, Verdict) else found

    patch.setattr(leader_decisions, "decide_verdict", decide_verdict)


@_mutant("told failures")
def _the_last_report_is_told_though_it_is_an_echo(patch: MonkeyPatch) -> None:
    real = RoundReports.add

    def add(reports: RoundReports, report: Report) -> bool:
        new = real(reports, report)
        if new and report.say is ReportKind.FAILED:
            reports.failure = report
        return new

    patch.setattr(RoundReports, "add", add)


@_mutant("budget")
def _a_last_failure_ends_the_job_though_a_member_was_lost(patch: MonkeyPatch) -> None:
    def is_last_failure(known: SealInput, last: Assignment) -> bool:
        charged = seal_decision.restarts_after(known.log, frozenset(last.nodes)) > last.restarts
        return charged and not known.parameters.budget_left(last.restarts)

    patch.setattr(seal_decision, "_is_last_failure", is_last_failure)


@_mutant("budget")
def _a_store_is_thought_to_be_punctual(patch: MonkeyPatch) -> None:
    patch.setattr(
        ProtocolParameters, "loss_known_after", property(lambda parameters: parameters.lease_ttl)
    )


@_mutant("budget")
def _the_budget_is_never_used_up(patch: MonkeyPatch) -> None:
    _with_seal_input(
        patch, lambda known: replace(known, parameters=replace(known.parameters, max_restarts=None))
    )


@_mutant("lost nodes do not act", "waits end")
def _a_suspended_node_goes_on(patch: MonkeyPatch) -> None:
    patch.setattr(State, "suspended", lambda state, now: False)


@_mutant("lost nodes do not act")
def _workers_of_a_lost_node_run_on(patch: MonkeyPatch) -> None:
    real = node_decisions._stop_of

    def stop(state: State, stage: Stage) -> do.StopWorkers | None:
        return real(state, stage) if state.leased else None

    patch.setattr(node_decisions, "_stop_of", stop)


@_mutant("lost members end rounds", "lost nodes do not act", "waits end", "workers")
def _a_lost_node_keeps_its_identity(patch: MonkeyPatch) -> None:
    real = apply_observation._take_answer

    def take(state: State, answer: Any, now: float) -> None:
        real(state, answer, now)
        if state.identities == 2:
            state.identities, state.node = 1, f"{state.profile.name}.1"

    patch.setattr(apply_observation, "_take_answer", take)


@_mutant("results")
def _who_succeeded_does_not_wait_for_the_verdict(patch: MonkeyPatch) -> None:
    real = node_decisions.known_end

    def known_end(state: State, now: float) -> Any:
        if state.own_round and (state.own_round.stage, ReportKind.SUCCEEDED) in state.reported:
            return do.FinishedWell(state.own_round, "done")
        return real(state, now)

    patch.setattr(machine, "known_end", known_end)


@_mutant("survivors get in", "waits end", "jobs finish")
def _who_succeeded_does_not_run_again(patch: MonkeyPatch) -> None:
    real = node_decisions.own_report

    def report(state: State) -> Any:
        wanted = real(state)
        mine = state.succeeded and state.succeeded.stage == state.log.stage
        match wanted:
            case do.Create(records=(Report(say=ReportKind.BACK),)) if mine:
                return None
        return wanted

    patch.setattr(machine, "own_report", report)


@_mutant("leaving")
def _who_leaves_goes_at_once(patch: MonkeyPatch) -> None:
    patch.setattr(State, "has_to_tell", False)


@_mutant("leaving")
def _a_leader_does_not_stay_with_its_round(patch: MonkeyPatch) -> None:
    patch.setattr(derive_state, "_stays_for_its_round", lambda state, now: False)
    real = node_decisions._delay

    def delay(state: State, end: do.End, now: float) -> float:
        return real(state, end, now) if state.has_to_tell else 0.0

    patch.setattr(node_decisions, "_delay", delay)


@_mutant("late nodes", "jobs finish")
def _a_late_node_begins_again(patch: MonkeyPatch) -> None:
    def meet(state: State) -> None:
        state.ignored_generation = state.log.marker.generation if state.log.marker else 0

    patch.setattr(apply_observation, "_take_first_look", meet)


@_mutant("late nodes")
def _a_rerun_is_turned_away(patch: MonkeyPatch) -> None:
    def meet(state: State) -> None:
        state.ignored_generation = 0

    patch.setattr(apply_observation, "_take_first_look", meet)


@_mutant("one open generation")
def _a_failure_opens_a_new_generation(patch: MonkeyPatch) -> None:
    real = leader_decisions._assign

    def assign(state: State, stage: Stage, *rest: Any) -> Any:
        verdict = state.log.verdict_on(state.log.stage)
        if verdict and verdict.cause is Cause.FAILED:
            stage = Stage(stage.generation + 1, 1)
        return real(state, stage, *rest)

    patch.setattr(leader_decisions, "_assign", assign)


@_mutant("waits end", "jobs finish", "lost members end rounds")
def _only_the_first_predecessor_is_watched(patch: MonkeyPatch) -> None:
    real = node_decisions.instruction_without_ledger

    def instruction_without_ledger(state: State, now: float) -> Any:
        wanted = real(state, now)
        again = isinstance(wanted, do.WatchPredecessor) and state.watched_predecessor is not None
        return None if again else wanted

    patch.setattr(machine, "instruction_without_ledger", instruction_without_ledger)


@_mutant("waits end", "jobs finish", "one membership", "true verdicts", "results")
def _an_unanswered_write_counts_as_done(patch: MonkeyPatch) -> None:
    real = apply_observation._take_answer

    def take(state: State, answer: Any, now: float) -> None:
        if isinstance(answer, Unanswered) and isinstance(state.pending, do.Create):
            answer = Created(answer.ticket)
        real(state, answer, now)

    patch.setattr(apply_observation, "_take_answer", take)


@_mutant("waits end", "jobs finish", "true verdicts", "survivors get in")
def _an_unanswered_write_counts_as_refused(patch: MonkeyPatch) -> None:
    real = apply_observation._take_answer

    def take(state: State, answer: Any, now: float) -> None:
        real(state, answer, now)
        if isinstance(answer, Unanswered) and state.unanswered_write:
            record = state.unanswered_write.records[0]
            if isinstance(record, Report):
                state.reported.add((record.stage, record.say))
            state.unanswered_write = None

    patch.setattr(apply_observation, "_take_answer", take)


@_mutant("waits end", "jobs finish")
def _the_end_is_not_marked(patch: MonkeyPatch) -> None:
    real = leader_decisions._end_round

    def end_round(*args: Any) -> do.Create:
        create = real(*args)
        return replace(create, records=create.records[:1])

    patch.setattr(leader_decisions, "_end_round", end_round)


@_mutant("waits end")
def _nobody_ever_gives_up(patch: MonkeyPatch) -> None:
    real = derive_state._update_timers

    def keep_time(state: State, now: float) -> None:
        real(state, now)
        state.waiting_since = None

    patch.setattr(derive_state, "_update_timers", keep_time)


@_mutant("jobs finish")
def _patience_runs_while_a_round_does(patch: MonkeyPatch) -> None:
    real = derive_state._update_timers

    def keep_time(state: State, now: float) -> None:
        log = state.log
        if state.workers is WorkersState.NONE:
            state.log = replace(log, assignment=None, verdict=None)
        real(state, now)
        state.log = log

    patch.setattr(derive_state, "_update_timers", keep_time)


@_mutant("ranks")
def _all_nodes_are_taken_for_equal(patch: MonkeyPatch) -> None:
    real = Assignment.ranks_of

    def ranks_of(assignment: Assignment, node: str) -> RankAssignment:
        right = real(assignment, node)
        return replace(right, first_rank=right.group_rank * right.nproc)

    patch.setattr(Assignment, "ranks_of", ranks_of)


@_mutant("one membership", "one open generation", "true verdicts", "budget", "size")
def _writes_are_not_guarded(patch: MonkeyPatch) -> None:
    real = Store.create

    def create(store: Store, guard: str, *rest: Any) -> Any:
        gone = guard not in store.members
        if gone:
            store.members[guard] = None  # type: ignore[assignment]  # nobody looks at it
        try:
            return real(store, guard, *rest)
        finally:
            if gone:
                del store.members[guard]

    patch.setattr(Store, "create", create)


@_mutant("waits end", disorder=True)
def _a_full_store_is_waited_for_for_ever(patch: MonkeyPatch) -> None:
    patch.setattr(State, "unheard", lambda state, now: not state.joined or state.suspended(now))


@_mutant("results", disorder=True)
def _who_succeeded_claims_it_for_all(patch: MonkeyPatch) -> None:
    patch.setattr(end_without_ledger, "_job_succeeded", lambda *_: True)


@_mutant("known ends are told", disorder=True)
def _a_failure_is_kept_from_the_caller(patch: MonkeyPatch) -> None:
    patch.setattr(node_decisions, "end_without_ledger", lambda _, gave_up, __: gave_up)


@_mutant(
    "waits end", "jobs finish", "lost members end rounds", "failures end rounds", disorder=True
)
def _a_stray_member_is_waited_for(patch: MonkeyPatch) -> None:
    real = VersionCheck.saw

    def saw(check: VersionCheck, name: str, there: Any) -> bool:
        return real(check, name, there) or there is not None

    patch.setattr(VersionCheck, "saw", saw)


@_mutant("strays", "jobs finish", disorder=True)
def _a_newer_member_refuses_who_comes_behind_it(patch: MonkeyPatch) -> None:
    real = VersionCheck.saw

    def saw(check: VersionCheck, name: str, there: Any) -> bool:
        if isinstance(there, ForeignRecord) and there.version is not None:
            raise there
        return real(check, name, there)

    patch.setattr(VersionCheck, "saw", saw)


@_mutant("waits end", "jobs finish", "one membership", "true verdicts", "results", disorder=True)
def _what_lies_under_a_key_is_taken_for_the_record(patch: MonkeyPatch) -> None:
    def create(
        writer: RecordWriter, session: Any, records: Any, guard: Any, *rest: Any
    ) -> CreatedInStore | GuardGone | Record:
        values = writer._keys.values(records)
        outcome = session.create(values)
        return records[0] if isinstance(outcome, Exists) else outcome

    patch.setattr(RecordWriter, "create", create)


@_mutant("gone ledgers", disorder=True)
def _a_gone_ledger_is_waited_for_as_one_that_is_away(patch: MonkeyPatch) -> None:
    real = derive_state._update_timers

    def keep_time(state: State, now: float) -> None:
        gone, state.ledger_gone = state.ledger_gone, ""
        real(state, now)
        state.ledger_gone = gone

    patch.setattr(derive_state, "_update_timers", keep_time)


@_mutant("gone ledgers", disorder=True)
def _a_gone_ledger_is_asked_again(patch: MonkeyPatch) -> None:
    real = machine.decide

    def decide(state: State, now: float) -> Any:
        gone, state.ledger_gone = state.ledger_gone, ""
        try:
            return real(state, now)
        finally:
            state.ledger_gone = gone

    patch.setattr(machine, "decide", decide)


@_mutant("gone ledgers", disorder=True)
def _workers_stop_when_the_ledger_is_gone(patch: MonkeyPatch) -> None:
    real = node_decisions._stop_of

    def stop(state: State, stage: Stage) -> do.StopWorkers | None:
        if state.ledger_gone:
            return do.StopWorkers(stage, "the ledger has gone", round_failed=True)
        return real(state, stage)

    patch.setattr(node_decisions, "_stop_of", stop)


@_mutant("gone ledgers", disorder=True)
def _who_was_asked_to_end_waits_for_a_word_of_a_gone_ledger(patch: MonkeyPatch) -> None:
    real = node_decisions._delay

    def delay(state: State, end: do.End, now: float) -> float:
        gone, state.ledger_gone = state.ledger_gone, ""
        seconds = real(state, end, now)
        state.ledger_gone = gone
        return seconds

    patch.setattr(node_decisions, "_delay", delay)


@_mutant("results", disorder=True)
def _who_succeeded_beside_a_gone_ledger_claims_it_for_all(patch: MonkeyPatch) -> None:
    real = end_without_ledger._job_succeeded

    def job_succeeded(state: State, own_round: Assignment, now: float) -> bool:
        return bool(state.ledger_gone) or real(state, own_round, now)

    patch.setattr(end_without_ledger, "_job_succeeded", job_succeeded)


@_mutant("known ends are told", disorder=True)
def _a_gone_ledger_hides_how_workers_ended(patch: MonkeyPatch) -> None:
    real = node_decisions.end_without_ledger

    def end(state: State, gave_up: do.GaveUp, now: float) -> do.End:
        return gave_up if gave_up.gone else real(state, gave_up, now)

    patch.setattr(node_decisions, "end_without_ledger", end)


@_mutant("gone ledgers", disorder=True)
def _a_ledger_that_is_away_is_taken_for_gone(patch: MonkeyPatch) -> None:
    real = derive_state._gave_up

    def gave_up(state: State, now: float) -> do.GaveUp:
        found = real(state, now)
        return replace(found, gone=found.ledger_away)

    patch.setattr(derive_state, "_gave_up", gave_up)


for _install, _noticed_by in GATE_MUTANTS:
    _name = _install.__name__.replace("_", " ")
    MUTANTS.append(Mutant(_name, _install, frozenset(_noticed_by), disorder=False, wishes=True))
for _install, _noticed_by in GROWTH_MUTANTS:
    _name = _install.__name__.replace("_", " ")
    MUTANTS.append(
        Mutant(_name, _install, frozenset(_noticed_by), disorder=False, wishes=True, growth=True)
    )
