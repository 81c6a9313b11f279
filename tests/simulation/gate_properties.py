"""What must hold when ranks agree on a step; a part of ``properties``.

====================  ==============================================================================
one step              all ranks of a round that do what was wished do it at the same step
steps ahead           nobody who waits for a decision has begun a step after the one decided for,
                      and nobody passes that without doing what was wished
holds end             no gate holds ranks for longer than the limit, and no agent is left without
                      a word
decisions reach all   where some ranks do what was wished, and others do not, somebody was cut off
wishes are answered   who wishes something hears what comes of it, unless its round ends
calm wishes           where nothing goes wrong, what was wished of ranks that call step is decided
few requests          a gate has a new wish, unless the leader asks for the sake of newcomers; the
                      leader writes itself nothing
true decisions        no checkpoint is decided on when a member's ranks are known to have ended
debuggers             every decision and every node that hears of it says whether a rank is
                      debugged, as the newest wish about that has it
suspended nodes       a node that may be lost holds no rank for a gate that it sees now
====================  ==============================================================================
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from llutil.rendezvous.protocol import instructions as do
from llutil.rendezvous.protocol.gate_records import (
    Gate,
    GateAnswer,
    GateDecision,
    Wish,
    WishKind,
)
from llutil.rendezvous.protocol.instructions import Instruction
from llutil.rendezvous.protocol.records import Record, Stage
from tests.simulation.growth_properties import FOR_NEWCOMERS
from tests.simulation.steps import MUCH_TO_DO

if TYPE_CHECKING:
    from tests.simulation.host import Host
    from tests.simulation.steps import Page, Rank
    from tests.simulation.world import World

__all__ = ["GateProperties"]

_LATE = 24.0
"""Seconds for which a write of somebody who was disturbed may have been on its way."""


@dataclass(frozen=True, slots=True)
class _OpenWish:
    kinds: frozenset[WishKind]
    stage: Stage | None
    made: float


class GateProperties:
    """Watches the gates of one world."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.acts: dict[tuple[Stage, int], int] = {}
        self.decisions: dict[tuple[Stage, int], GateDecision] = {}
        self.gates: dict[tuple[Stage, int], Gate] = {}
        self.opened: dict[tuple[Stage, int], dict[str, do.OpenGate]] = {}
        self.released: set[tuple[Stage, int, str]] = set()
        """Gates that a node's agent opened though it knew of no decision."""
        self.open_wishes: dict[str, list[_OpenWish]] = {}
        self.calm = False
        """Whether nothing goes wrong, and all ranks call ``step`` on and on."""

    def _fail(self, name: str, detail: str) -> None:
        self.world.properties.fail(name, detail)

    @property
    def _limit(self) -> float:
        """Seconds of the world for which a node holds its ranks at most."""
        rules = self.world.rules
        limit = 2 * rules.gate_timeout + 1.5 * rules.lease_ttl
        return limit / 0.97 + self.world.properties.slack

    def _disturbed(self, since: float) -> bool:
        return any(host.disturbed > max(0.0, since) for host in self.world.hosts)

    # What the store sees

    def creating(self, record: Record) -> None:
        """The store is about to write ``record``."""
        match record:
            case Gate() if (record.stage, record.number) not in self.gates:
                self._asking(record)
            case GateDecision() if (record.stage, record.number) not in self.decisions:
                self._deciding(record)
            case _:
                pass

    def _asking(self, gate: Gate) -> None:
        self.gates[gate.stage, gate.number] = gate
        last = self.gates.get((gate.stage, gate.number - 1))
        if FOR_NEWCOMERS in gate.why:
            return  # nobody but the leader wishes that
        if gate.number > 1 and (last is None or last.heard == gate.heard):
            self._fail("few requests", f"{gate} has no wish that was not heard before: {last}")

    def _deciding(self, decision: GateDecision) -> None:
        world, place = self.world, (decision.stage, decision.number)
        self.decisions[place] = decision
        if decision.debugged is not self._is_debugged(*place):
            self._fail("debuggers", f"{decision} after {self.gates[place]}")
        if decision.stage in world.properties.verdicts:
            return
        if decision.step is None:
            gate = self.gates[place]
            calls = [
                page.furthest is not None
                for (stage, _), page in world.steps.pages.items()
                if stage == decision.stage
            ]
            ended = any(stage == decision.stage for stage, _ in world.properties.reported)
            full = decision.why.endswith(MUCH_TO_DO)
            can = bool(calls) and all(calls) and not full and not ended
            if self.calm and gate.needs_step and can:
                self._fail("calm wishes", f"nothing comes of {gate}: {decision.why}")
            return
        if WishKind.CHECKPOINT in decision.kinds:
            self._all_can_save(decision)
        for (stage, node), page in world.steps.pages.items():
            if stage == decision.stage and (*place, node) not in self.released and page.alive:
                self._is_ahead(page, decision.number, decision.step)

    def _is_debugged(self, stage: Stage, number: int) -> bool:
        """What the newest gate that says it up to ``number`` says of debuggers."""
        for one in range(number, 0, -1):
            gate = self.gates.get((stage, one))
            if gate and WishKind.DEBUGGER_START in gate.kinds:
                return True
            if gate and WishKind.DEBUGGER_END in gate.kinds:
                return False
        return False

    def _all_can_save(self, decision: GateDecision) -> None:
        now, world = self.world.now, self.world
        for (stage, node), (_, when) in world.properties.reported.items():
            known = when < now - world.properties.slack and not self._disturbed(when - _LATE)
            if stage == decision.stage and known:
                self._fail("true decisions", f"{node} has ended: {decision}")

    def missed(self, rank: Rank, number: int, step: int) -> None:
        """A rank is past the step at which it should have done something."""
        who = rank.page.host.profile.name
        self._fail("steps ahead", f"{who} is at {rank.step}, and missed gate {number} at {step}")

    def _is_ahead(self, page: Page, number: int, step: int) -> None:
        begun = max(rank.begun for rank in page.ranks)
        if begun > step:
            who = page.host.profile.name
            self._fail("steps ahead", f"gate {number}: {who} has begun {begun}, decided: {step}")

    # What nodes do

    def wished(self, host: Host, kinds: frozenset[WishKind]) -> None:
        """Somebody at ``host`` makes a wish."""
        entry = _OpenWish(kinds, host.running, self.world.now)
        self.open_wishes.setdefault(host.profile.name, []).append(entry)
        self.world.at(self.world.now + 3 * self._limit, self._answered_by_now, host, entry)

    def _answered_by_now(self, host: Host, entry: _OpenWish) -> None:
        over = host.dead or host.end is not None or host.running != entry.stage
        if entry.stage is None:  # no ranks run there, so it hears of no gate, but of a refusal
            state = host.machine.state
            late = host.clock() - 2 * state.parameters.gate_limit
            over = over or not any(own.since < late for own in state.gates.wishes)
        if over or entry not in self.open_wishes[host.profile.name]:
            return
        if host.paused or host.disturbed > self.world.now - self._limit:
            self.world.at(self.world.now + self._limit, self._answered_by_now, host, entry)
            return
        self._fail("wishes are answered", f"{host.profile.name} hears nothing of {entry}")

    def instructed(self, host: Host, instruction: Instruction) -> None:
        """``host`` is about to carry out ``instruction``."""
        match instruction:
            case do.RaiseGate(gate=gate):
                state = host.machine.state
                if host.lost or host.clock() >= state.renewed + self.world.rules.lease_ttl:
                    self._fail("suspended nodes", f"{host.profile.name} raises {gate}")
            case do.OpenGate():
                self._opening(host, instruction)
            case do.RefuseWish(why=why) if self.calm and why.startswith("the leader"):
                self._fail("calm wishes", f"{host.profile.name}: {instruction}")
            case do.RefuseWish() | do.StopWorkers():
                # Whoever wished something when the round ends is not told more than that.
                self.open_wishes.get(host.profile.name, []).clear()
            case do.Create(records=(Wish() | GateAnswer(), *_)):
                state = host.machine.state
                if state.leads and not state.unanswered_write:
                    self._fail("few requests", f"the leader {host.profile.name} writes to itself")
            case _:
                pass

    def raised(self, page: Page, number: int) -> None:
        """The agent has raised the gate on its page."""
        world = self.world
        world.at(world.now + self._limit, self._open_by_now, page, number)
        soon = world.rules.gate_timeout / 0.97 + 2 * world.properties.slack + 1.0
        world.at(world.now + soon, self._open_soon, page, number, world.now)

    def _open_soon(self, page: Page, number: int, since: float) -> None:
        """Where nothing goes wrong, the leader's patience is the limit."""
        crashed = any(host.died > since - _LATE and host.dead for host in self.world.hosts)
        if not (crashed or self._disturbed(since - _LATE)):
            self._open_by_now(page, number)

    def _open_by_now(self, page: Page, number: int) -> None:
        host = page.host
        if number in page.decided or not page.alive or host.end is not None:
            return
        if host.running != page.stage or host.machine.state.workers.name == "STOPPING":
            return
        if host.paused or host.disturbed > self.world.now - 1:
            self.world.at(self.world.now + 2.0, self._open_by_now, page, number)
            return
        self._fail("holds end", f"gate {number} still holds the ranks of {host.profile.name}")

    def _opening(self, host: Host, opened: do.OpenGate) -> None:
        place = (opened.stage, opened.number)
        self.open_wishes.get(host.profile.name, []).clear()
        before = self.opened.setdefault(place, {})
        decided = self.decisions.get(place)
        heard = decided is not None and opened.why == decided.why  # and not by its own clock
        if heard and decided is not None and opened.debugged is not decided.debugged:
            self._fail("debuggers", f"{host.profile.name} hears {opened} of {decided}")
        if host.node in before:
            if opened.kinds:
                self._fail("one step", f"{host.profile.name} opens {place} twice: {opened}")
            return
        before[host.node] = opened
        if not opened.kinds:
            self.released.add((*place, host.node))
        page = self.world.steps.pages.get((opened.stage, host.node))
        if opened.kinds and opened.step is not None and page is not None and page.alive:
            self._is_ahead(page, opened.number, opened.step)
        self._skips_none(host, opened)
        steps = {one.step for one in before.values() if one.kinds}
        if len(steps) > 1:
            self._fail("one step", f"{place} is opened for the steps {steps}")
        if steps and not all(one.kinds for one in before.values()):
            since = self.world.now - self._limit - _LATE
            if not self._disturbed(since) and not self.world.store.gone:
                self._fail("decisions reach all", f"{place}: {before}")

    def _skips_none(self, host: Host, opened: do.OpenGate) -> None:
        """What was decided on earlier gates, which hold this node's ranks, it was told before."""
        for (stage, number), decision in self.decisions.items():
            page = self.world.steps.pages.get((stage, host.node))
            if stage != opened.stage or number >= opened.number or not decision.kinds or not page:
                continue
            told = host.node in self.opened.get((stage, number), {})
            if number in page.was_raised and not told:
                self._fail("decisions reach all", f"{host.profile.name} skips {decision}")

    def acted(self, page: Page, number: int, step: int, kinds: tuple[WishKind, ...]) -> None:
        """A rank does what was wished, at the end of ``step``."""
        place = (page.stage, number)
        decision = self.decisions.get(place)
        if decision is None or decision.kinds != kinds:
            self._fail("one step", f"{kinds} at step {step}, decided: {decision}")
        if self.acts.setdefault(place, step) != step:
            self._fail("one step", f"gate {number} at step {step} and at {self.acts[place]}")
