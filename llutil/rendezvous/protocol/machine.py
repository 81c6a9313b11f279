"""The rendezvous of one node as a machine: one observation in, a list of instructions out.

::

    instructions = machine.step(observation, now)

The list ends with a ``Wait``, which says until when nothing is to be done without a new
observation. The machine has a ``State`` and changes it in two places only: ``apply_observation``
after an observation, ``_note_instruction`` after a decision. The functions that decide what to do
read the state and change nothing. This module may import nothing but the standard library and the
rest of the room's protocol.
"""

from __future__ import annotations

from llutil.rendezvous.protocol.apply_gates import begin_gates, note_gate_instruction
from llutil.rendezvous.protocol.apply_observation import apply_observation
from llutil.rendezvous.protocol.gate_steps import gate_deadline, gate_instruction, gate_request
from llutil.rendezvous.protocol.instructions import (
    CloseStore,
    Create,
    DeleteGates,
    DeleteStale,
    Finish,
    Instruction,
    Join,
    Leave,
    OpenGate,
    OpenStore,
    RaiseGate,
    ReadBack,
    ReadLog,
    ReadReports,
    Refused,
    RefuseWish,
    RenewGeneration,
    StartWorkers,
    StopWorkers,
    TakeLease,
    Wait,
    WatchAnswers,
    WatchMembers,
    WatchPredecessor,
    WatchReports,
)
from llutil.rendezvous.protocol.leader_decisions import next_leader_step
from llutil.rendezvous.protocol.node_decisions import (
    instruction_without_ledger,
    known_end,
    next_end_step,
    own_report,
    own_request,
)
from llutil.rendezvous.protocol.observations import Observation
from llutil.rendezvous.protocol.parameters import ProtocolParameters
from llutil.rendezvous.protocol.records import Member
from llutil.rendezvous.protocol.seal_decision import Incompatible, NotYet
from llutil.rendezvous.protocol.state import State, WorkersState

__all__ = ["Machine"]

_FOREVER = float("inf")


class Machine:
    """One node's part in one run, from its first lease to its ``Finish``.

    ``profile`` is this node's member record. Its ``node`` is ignored: the machine makes the
    identities from its ``name``, which no other node of the run may have. The first observation
    should be ``Ticked``.
    """

    def __init__(self, parameters: ProtocolParameters, profile: Member) -> None:
        self.state = State(parameters=parameters, profile=profile)

    def step(self, observation: Observation, now: float) -> tuple[Instruction, ...]:
        """Apply ``observation`` at ``now`` (the node's own clock, in seconds) and return what to
        do, in order.

        The last instruction is the only ``Wait``.
        """
        state = self.state
        apply_observation(state, observation, now)
        instructions: list[Instruction] = []
        while True:
            if state.decided_end is None:
                state.decided_end = known_end(state, now)
            decision = decide(state, now)
            if isinstance(decision, Incompatible):
                state.decided_end = Refused(decision.why)
                continue
            instructions.append(decision)
            if isinstance(decision, Wait):
                return tuple(instructions)
            _note_instruction(state, decision, now)


def decide(state: State, now: float) -> Instruction | Incompatible:
    """The next instruction; a ``Wait`` if nothing is to be done now."""
    if state.finished:
        return Wait(_FOREVER, "finished")
    if state.decided_end:
        return next_end_step(state, state.decided_end, now) or Wait(
            _FOREVER, "this node's workers are stopping"
        )
    if instruction := instruction_without_ledger(state, now):
        return instruction
    if about_gates := gate_instruction(state, now):
        return about_gates
    if state.ledger_gone:
        return _wait(state, NotYet(_FOREVER, "the ledger has gone for good; workers run on"), now)
    if state.pending:
        return _wait(state, NotYet(_FOREVER, f"waiting for an answer: {state.pending.why}"), now)
    if now < state.retry_at:
        return _wait(state, NotYet(state.retry_at, "the ledger did not answer"), now)
    if instruction := own_request(state, now):
        return instruction
    if state.suspended(now):
        lease = "this node's lease may be over; only the ledger can say"
        return _wait(state, NotYet(_FOREVER, lease), now)
    if state.joined:
        if instruction := own_report(state) or gate_request(state):
            return instruction
        if state.leads:
            step = next_leader_step(state, now)
            return _wait(state, step, now) if isinstance(step, NotYet) else step
    return _wait(state, NotYet(_FOREVER, _why_waiting(state)), now)


def _why_waiting(state: State) -> str:
    if state.workers is WorkersState.STOPPING:
        return "this node's workers are stopping"
    if running := state.log.running:
        if state.workers is WorkersState.RUNNING:
            return f"{running.stage} runs"
        return f"{running.stage} runs elsewhere; waiting for its verdict"
    return f"waiting for the round after {state.log.stage}"


def _wait(state: State, not_yet: NotYet, now: float) -> Wait:
    """A wait until the earliest time at which the clock alone may change the decision."""
    until = min(not_yet.until, gate_deadline(state))
    parameters = state.parameters
    if state.waiting_since is not None and not state.wanted_end:
        until = min(until, state.gives_up_at)
    elif state.leased and state.idle and not state.wanted_end and not state.suspended(now):
        # ``wait_limit`` begins to run when the node is suspended.
        until = min(until, state.renewed + parameters.lease_ttl)
    elif state.wanted_end and state.linger and state.leased and not state.suspended(now):
        # A leader that stays for its round has a deadline from then on.
        until = min(until, state.renewed + parameters.lease_ttl)
    if state.wanted_end_since is not None:
        lease, linger = parameters.lease_ttl, min(state.linger, parameters.timeout)
        for delay in (0.0, linger, lease, linger + lease):
            if (deadline := state.wanted_end_since + delay) > now:
                until = min(until, deadline)
    return Wait(until, not_yet.why)


def _note_instruction(state: State, instruction: Instruction, now: float) -> None:
    """Note in the state that the driver is given ``instruction`` at ``now``."""
    match instruction:
        case TakeLease() | Join() | ReadLog() | ReadReports() | Create() | ReadBack():
            state.pending, state.ticket = instruction, instruction.ticket
            if isinstance(instruction, ReadReports):
                state.nodes_being_checked = instruction.nodes
            elif isinstance(instruction, Create):
                note_gate_instruction(state, instruction, now)
        case WatchPredecessor(name=name):
            state.watched_predecessor = name
        case WatchMembers():
            state.watching_members = True
        case WatchReports(stage=stage):
            state.watching_reports = stage
        case RenewGeneration(generation=generation):
            state.renewed_generation = generation
        case DeleteStale():
            state.stale_before, state.marked_generation = None, 0
        case OpenStore(stage=stage):
            state.store_stage, state.bound_store = stage, None
        case CloseStore():
            state.store_stage = state.bound_store = None
        case StartWorkers(assignment=assignment):
            state.own_round, state.workers, state.outcome, state.waited = (
                assignment,
                WorkersState.RUNNING,
                None,
                0.0,
            )
            begin_gates(state, assignment.stage)
        case StopWorkers():
            state.workers = WorkersState.STOPPING
        case RaiseGate() | OpenGate() | RefuseWish() | WatchAnswers() | DeleteGates():
            note_gate_instruction(state, instruction, now)
        case Leave():
            state.has_left = True
        case Finish():
            state.finished = True
        case Wait():
            pass
