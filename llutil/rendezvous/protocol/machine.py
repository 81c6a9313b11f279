"""The rendezvous of one node as a machine: one observation in, a list of instructions out.

::

    instructions = machine.step(observation, now)

The list ends in a ``Wait``, which says until when there is nothing to do without a new observation.
The machine keeps a ``State`` and changes it in two places only: ``absorb`` takes in what was
observed, ``_commit`` notes what was instructed. What to do is decided by functions of the state
that change nothing. This module may import nothing but the standard library and the rest of the
room's protocol.
"""

from __future__ import annotations

from llutil.rendezvous.protocol.apply_observation import absorb
from llutil.rendezvous.protocol.instructions import (
    CloseStore,
    Create,
    Finish,
    Instruction,
    Join,
    KeepGeneration,
    Leave,
    OpenStore,
    ReadBack,
    ReadLog,
    ReadReports,
    Refused,
    StartWorkers,
    StopWorkers,
    Sweep,
    TakeLease,
    Wait,
    WatchMembers,
    WatchPredecessor,
    WatchReports,
)
from llutil.rendezvous.protocol.leader_decisions import lead
from llutil.rendezvous.protocol.node_decisions import at_once, conclusion, depart, report, request
from llutil.rendezvous.protocol.observations import Observation
from llutil.rendezvous.protocol.parameters import ProtocolParameters
from llutil.rendezvous.protocol.records import Member
from llutil.rendezvous.protocol.seal_decision import Incompatible, NotYet
from llutil.rendezvous.protocol.state import State, WorkersState

__all__ = ["Machine"]

_FOREVER = float("inf")


class Machine:
    """One node's part in one run, from its first lease to its ``Finish``.

    ``profile`` is this node's member record; its ``node`` is ignored, since the machine makes
    identities of its ``name``, which no other node of the run may have. The first observation
    should be ``Ticked``.
    """

    def __init__(self, rules: ProtocolParameters, profile: Member) -> None:
        self.state = State(rules=rules, profile=profile)

    def step(self, observation: Observation, now: float) -> tuple[Instruction, ...]:
        """Take in ``observation`` at ``now`` (the node's own clock, in seconds) and say what to do,
        in order.

        The last instruction is a ``Wait``, and the only one.
        """
        state = self.state
        absorb(state, observation, now)
        instructions: list[Instruction] = []
        while True:
            if state.ending is None:
                state.ending = conclusion(state, now)
            decision = decide(state, now)
            if isinstance(decision, Incompatible):
                state.ending = Refused(decision.why)
                continue
            instructions.append(decision)
            if isinstance(decision, Wait):
                return tuple(instructions)
            _commit(state, decision)


def decide(state: State, now: float) -> Instruction | Incompatible:
    """What to do next; a ``Wait`` if there is nothing."""
    if state.finished:
        return Wait(_FOREVER, "finished")
    if state.ending:
        return depart(state, state.ending, now) or Wait(
            _FOREVER, "this node's workers are stopping"
        )
    if instruction := at_once(state, now):
        return instruction
    if state.asked:
        return _wait(state, NotYet(_FOREVER, f"waiting for an answer: {state.asked.why}"), now)
    if now < state.retry:
        return _wait(state, NotYet(state.retry, "the ledger did not answer"), now)
    if instruction := request(state, now):
        return instruction
    if state.suspended(now):
        lease = "this node's lease may be over; only the ledger can say"
        return _wait(state, NotYet(_FOREVER, lease), now)
    if state.joined:
        if instruction := report(state):
            return instruction
        if state.leads:
            step = lead(state, now)
            return _wait(state, step, now) if isinstance(step, NotYet) else step
    return _wait(state, NotYet(_FOREVER, _why_waiting(state)), now)


def _why_waiting(state: State) -> str:
    if state.work is WorkersState.STOPPING:
        return "this node's workers are stopping"
    if running := state.log.running:
        if state.work is WorkersState.RUNNING:
            return f"{running.stage} runs"
        return f"{running.stage} runs elsewhere; waiting for its verdict"
    return f"waiting for the round after {state.log.stage}"


def _wait(state: State, hold: NotYet, now: float) -> Wait:
    """A wait until the earliest moment at which time alone may change what is to be done."""
    until = hold.until
    rules = state.rules
    if state.waiting_since is not None and not state.wish:
        until = min(until, state.waiting_since + state.patience - state.waited)
    elif state.leased and state.idle and not state.wish and not state.suspended(now):
        until = min(until, state.renewed + rules.lease_ttl)  # patience begins when it is suspended
    if state.wish_since is not None:
        for patience in (0.0, state.linger, rules.lease_ttl, state.linger + rules.lease_ttl):
            if (deadline := state.wish_since + patience) > now:
                until = min(until, deadline)
    return Wait(until, hold.why)


def _commit(state: State, instruction: Instruction) -> None:
    """Note that ``instruction`` is on its way."""
    match instruction:
        case TakeLease() | Join() | ReadLog() | ReadReports() | Create() | ReadBack():
            state.asked, state.ticket = instruction, instruction.ticket
            if isinstance(instruction, ReadReports):
                state.checking = instruction.nodes
        case WatchPredecessor(name=name):
            state.watched = name
        case WatchMembers():
            state.watching_members = True
        case WatchReports(stage=stage):
            state.watching_reports = stage
        case KeepGeneration(generation=generation):
            state.kept = generation
        case Sweep():
            state.sweep, state.marked = None, 0
        case OpenStore(stage=stage):
            state.store_asked, state.store = stage, None
        case CloseStore():
            state.store_asked = state.store = None
        case StartWorkers(assignment=assignment):
            state.seat, state.work, state.outcome, state.waited = (
                assignment,
                WorkersState.RUNNING,
                None,
                0.0,
            )
        case StopWorkers():
            state.work = WorkersState.STOPPING
        case Leave():
            state.left = True
        case Finish():
            state.finished = True
        case Wait():
            pass
