"""The ranks of a world as they call ``step``, the page of each node, and the agent's part of it.

Ranks of a lockstep job are at most a step apart, as a collective in each step forces them to be.
Others run at their own pace, call ``step`` for some time only, or never. A page holds the newest
gate, and what was decided on the gates that a rank has yet to pass.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from llutil.rendezvous.protocol import instructions as do
from llutil.rendezvous.protocol import observations as see
from llutil.rendezvous.protocol.gate_records import WishKind
from llutil.rendezvous.protocol.records import Stage

if TYPE_CHECKING:
    from tests.simulation.host import Host
    from tests.simulation.work import Round
    from tests.simulation.world import World

__all__ = ["MUCH_TO_DO", "Page", "Rank", "Steps"]

MUCH_TO_DO = "its ranks have much to do yet"
_ON_AND_ON = 10**9
_BUSY = ("checkpoint", "end")
_RING = 4
"""How many decisions a page holds for a rank that has yet to pass them."""


@dataclass(slots=True, eq=False)
class Rank:
    """``step``: the last that it has finished; ``begun``: the last that it has begun; ``done``: the
    newest gate that it has passed.
    """

    page: Page
    pace: float
    calls: int
    """It calls ``step`` so many times, and then no more."""
    step: int = 0
    begun: int = 1
    done: int = 0
    pause: int = 0
    """The newest gate at which it was told to pause."""
    waits: str = ""
    """What it waits for at the end of ``step``: a gate, a resume, a checkpoint, or its own end."""
    ended: bool = False


@dataclass(slots=True, eq=False)
class Page:
    """What a node's agent and its ranks share in a round."""

    host: Host
    node: str
    stage: Stage
    ranks: list[Rank] = field(default_factory=list)
    newest: int = 0
    """The newest gate that was raised."""
    decided: dict[int, tuple[int | None, tuple[WishKind, ...]]] = field(default_factory=dict)
    resumed: int = 0
    was_raised: set[int] = field(default_factory=set)
    """The gates that were raised here."""

    @property
    def alive(self) -> bool:
        """Whether its ranks run."""
        current = self.host.world.work.rounds.get(self.stage)
        return current is not None and self.node in current.training and not self.host.dead

    @property
    def furthest(self) -> int | None:
        """The greatest step that one of its ranks has begun; None if none has called ``step``."""
        begun = [rank.begun for rank in self.ranks if rank.step]
        return max(begun, default=None)


class Steps:
    """The steps of a world's ranks; there are none unless ``rng`` is set."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.rng: random.Random | None = None
        self.lockstep = True
        self.steady = False
        """Whether all ranks call ``step`` until they end."""
        self.deaf = 0.0
        """How many of the instructions to raise a gate an agent does not hear, 0 to 1."""
        self.pages: dict[tuple[Stage, str], Page] = {}
        self._due: dict[Host, float] = {}
        self.acts = 0

    # Ranks

    def prepare(self, host: Host, node: str, stage: Stage) -> None:
        """A node starts its workers: its page is there before them."""
        self.pages[stage, node] = Page(host, node, stage)

    def begin(self, current: Round) -> None:
        """All nodes of a round have started their workers."""
        rng = self.rng
        if rng is None:
            return
        pace = rng.choice((0.05, 0.2, 0.7))
        silent = rng.random() < 0.1
        for node in current.started:
            page = self.pages[current.assignment.stage, node]
            seat = current.assignment.seat(node)
            assert seat is not None
            for _ in range(seat.nproc):
                calls = (
                    0 if silent or rng.random() < 0.03 else rng.choice((_ON_AND_ON, _ON_AND_ON, 8))
                )
                calls = _ON_AND_ON if self.steady else calls
                own = pace if self.lockstep else pace * rng.choice((0.2, 1.0, 3.0))
                page.ranks.append(Rank(page, own, calls))
        for page in self.pages_of(current):
            for rank in page.ranks:
                self._begin_step(rank)

    def pages_of(self, current: Round) -> list[Page]:
        """The pages of the round's nodes."""
        stage = current.assignment.stage
        found = (self.pages.get((stage, node)) for node in current.started)
        return [page for page in found if page is not None]

    def _begin_step(self, rank: Rank) -> None:
        rank.begun = rank.step + 1
        if rank.calls <= rank.step:
            return  # it trains, evaluates, or saves, and calls no more
        if not self.lockstep:
            self._finish_later(rank)
            return
        current = self.world.work.rounds[rank.page.stage]
        peers = [peer for page in self.pages_of(current) for peer in page.ranks]
        if all(peer.begun >= rank.begun or not peer.calls for peer in peers):
            for peer in peers:
                if peer.begun == rank.begun and peer.step < peer.begun <= peer.calls:
                    self._finish_later(peer)

    def _finish_later(self, rank: Rank) -> None:
        assert self.rng is not None
        delay = rank.pace * (0.5 + self.rng.random())
        self.world.at(self.world.now + delay, self._finish_step, rank, rank.begun)

    def _finish_step(self, rank: Rank, step: int) -> None:
        host = rank.page.host
        if not rank.page.alive or rank.ended or rank.step >= step:
            return
        if host.paused:
            host.backlog.append(lambda: self._finish_step(rank, step))
            return
        rank.step = step
        self._pass(rank)

    def _pass(self, rank: Rank) -> None:
        """``rank`` is at the end of a step: it does what is decided for that, and goes on if it
        may.
        """
        page = rank.page
        if rank.waits in _BUSY:
            return
        for number in range(rank.done + 1, page.newest + 1):
            decided = page.decided.get(number)
            if decided is None:
                rank.waits = "gate"
                return
            step, kinds = decided
            if step is not None and kinds:
                if rank.step < step:
                    break  # no later decision is for an earlier step
                if rank.step == step:
                    self._act(rank, number, kinds)
                else:
                    self.world.properties.gates.missed(rank, number, step)
            rank.done = number
            if rank.ended or rank.waits in _BUSY:
                return
        rank.waits = "resume" if rank.pause and rank.pause >= page.resumed else ""
        if not rank.waits:
            self._begin_step(rank)

    def _act(self, rank: Rank, number: int, kinds: tuple[WishKind, ...]) -> None:
        page = rank.page
        self.acts += 1
        self.world.note(page.host.profile.name, f"== a rank does {kinds} at step {rank.step}")
        self.world.properties.gates.acted(page, number, rank.step, kinds)
        if WishKind.PAUSE in kinds:
            rank.pause = number
        if WishKind.CHECKPOINT in kinds and self.world.saves.rng:
            rank.waits = "checkpoint"
            self.world.saves.enter(rank, number, WishKind.STOP in kinds)
        elif WishKind.STOP in kinds:
            self._stop(rank)

    def _stop(self, rank: Rank) -> None:
        """``rank`` ends; that may take some time."""
        if self.world.saves.rng is None:
            self._end(rank)
            return
        rank.waits = "end"
        self.world.at(self.world.now + self.world.saves.ending_time(), self._end, rank)

    def _end(self, rank: Rank) -> None:
        page = rank.page
        rank.ended, rank.waits = True, ""
        if all(one.ended for one in page.ranks):
            self.world.work.succeed(page.stage, page.node, page.host)

    def leave_checkpoint(self, rank: Rank, stops: bool) -> None:
        """The checkpoint that ``rank`` was saving is over. ``stops``: it ends then."""
        if not rank.page.alive:
            return
        if rank.page.host.paused:
            rank.page.host.backlog.append(lambda: self.leave_checkpoint(rank, stops))
            return
        if stops:
            self._stop(rank)
        else:
            rank.waits = ""
            self._pass(rank)

    def holds(self, stage: Stage, node: str) -> bool:
        """Whether ranks of that node wait at the end of a step, and so cannot come to their end."""
        page = self.pages.get((stage, node))
        return page is not None and any(rank.waits for rank in page.ranks)

    @property
    def paused(self) -> bool:
        """Whether a rank anywhere is paused, or will be."""
        return any(
            page.alive
            and (
                any(rank.waits == "resume" for rank in page.ranks)
                or any(WishKind.PAUSE in kinds for _, kinds in page.decided.values())
            )
            for page in self.pages.values()
        )

    # The agent

    def instruct(self, host: Host, instruction: do.RaiseGate | do.OpenGate) -> None:
        """The agent of ``host`` gets an instruction, and carries it out in order, some time
        later.
        """
        rng = self.rng or self.world.rng
        due = max(self._due.get(host, 0.0), self.world.now + rng.random() * self.world.delay)
        self._due[host] = due
        self.world.at(due, self._carry_out, host, host.node, instruction)

    def _carry_out(self, host: Host, node: str, instruction: do.RaiseGate | do.OpenGate) -> None:
        if host.dead or host.end is not None:
            return
        if host.paused:
            host.backlog.append(lambda: self._carry_out(host, node, instruction))
            return
        match instruction:
            case do.RaiseGate(gate=gate):
                self._raise(host, node, gate.stage, gate.number)
            case do.OpenGate():
                self._open(node, instruction)

    def _raise(self, host: Host, node: str, stage: Stage, number: int) -> None:
        page = self.pages.get((stage, node))
        if self.rng is not None and self.deaf and self.rng.random() < self.deaf:
            self.world.properties.gates.calm = False
            return
        furthest, refusal = None, ""
        if self.world.torchrun:
            refusal = "torch's agent holds no ranks"
        elif page is not None:
            calling = [rank.done for rank in page.ranks if rank.step and not rank.ended]
            if number - min(calling, default=number) > _RING:
                refusal = MUCH_TO_DO
            else:
                page.newest, furthest = number, page.furthest
                page.was_raised.add(number)
                self.world.properties.gates.raised(page, number)
        host.soon(see.GateRaised(stage, number, furthest, refusal))

    def _open(self, node: str, opened: do.OpenGate) -> None:
        page = self.pages.get((opened.stage, node))
        if page is None:
            return
        page.resumed = max(page.resumed, opened.resumed)
        if opened.number not in page.decided:
            page.newest = max(page.newest, opened.number)
            for number in range(1, opened.number):  # those that it never raised
                page.decided.setdefault(number, (None, ()))
            page.decided[opened.number] = (opened.step, opened.kinds)
        if page.alive:
            for rank in page.ranks:
                if rank.waits:
                    self._pass(rank)
