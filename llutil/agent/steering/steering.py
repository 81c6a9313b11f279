"""Steers the ranks of one node, round after round, for its agent.

It looks at the page a few times a second while workers run: what the flags ask for becomes a wish,
and what ranks have done becomes a flag and a word to the observer. What the ranks of the job agree
on comes back through ``raise_gate``, ``open_gate`` and ``refuse``.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from collections.abc import Set as AbstractSet

from llutil.agent.observer import AgentObserver
from llutil.agent.steering.agreement import Agreement
from llutil.agent.steering.asked_checkpoint import AskedCheckpoint
from llutil.agent.steering.flags import FlagReader
from llutil.agent.steering.orderly_stop import OrderlyStop
from llutil.agent.steering.page_gates import Asked, PageGates, on_page
from llutil.agent.steering.seen_ranks import Ranks, SeenRanks
from llutil.agent.steering.wanted_stacks import WantedStacks
from llutil.events.events import Events
from llutil.events.gate import Kinds
from llutil.events.rank_slot import Slot
from llutil.rendezvous.protocol.gate_records import WishKind, in_words

__all__ = ["Steering"]

_log = logging.getLogger(__name__)

_FOREVER = float("inf")
# Seconds between two looks at the page.
_PERIOD = 0.25
# The same while ranks are to save. A leader may wait for that to let somebody in, and what ranks do
# until then they will do again.
_SOON = 0.02


class Steering:
    """The steering of one node. ``begin`` and ``end`` enclose the workers of a round.

    ``saves``: whether the job has a place for checkpoints. ``every``: seconds from one to the next,
    or None.
    """

    def __init__(
        self, events: Events, observer: AgentObserver, *, saves: bool, every: float | None
    ) -> None:
        self.saves = saves
        self._events, self._observer = events, observer
        self._flags = FlagReader(events, saves=saves, every=every)
        self._gates = PageGates(events)
        self._stop = OrderlyStop()
        self._agreement: Agreement | None = None
        self._ranks = SeenRanks(events)
        self._wishes: dict[int, AbstractSet[WishKind]] = {}
        """What was wished at each gate that is raised and not open."""
        self._checkpoints: list[AskedCheckpoint] = []
        self._pause: tuple[int, Asked] | None = None
        self._waits: tuple[int, float] | None = None
        """The gate after which ranks wait for the end of their round, and until when."""
        self.asked_stop: Asked | None = None
        """The stop of the job that somebody asked for in this round, once its step is agreed on."""
        self._told: AbstractSet[WishKind] = frozenset()
        """What is refused without another word: a person is at the prompt."""
        self.stacks = WantedStacks()
        self._next_look = _FOREVER
        self.refused: dict[WishKind, str] = {}
        """Why nothing has come of what was last asked for here, by kind."""

    # The agent's side.

    def begin(self, agreement: Agreement, ranks: Ranks, *, first_node: bool) -> None:
        """The workers of a round have just started; the page was reset before."""
        now = time.monotonic()
        self._agreement, self._ranks = agreement, SeenRanks(self._events, ranks)
        self._gates.begin()
        self._flags.begin(now, first_node=first_node)
        self._wishes.clear()
        self._told = frozenset()
        self._checkpoints.clear()
        self._pause = self.asked_stop = self._waits = None
        self.stacks.begin()
        self._next_look = now + _PERIOD

    def end(self) -> None:
        """The workers of the round have ended."""
        if self._agreement is not None:
            now = time.monotonic()
            self._follow_ranks(now)
            if over := self._flags.debugger(now, None):  # whose rank has just ended
                self._agreement.wish(over.keys(), next(iter(over.values())))
        self._agreement = None
        self._next_look = _FOREVER

    @property
    def next_look(self) -> float:
        """When ``look`` wants to be called, on ``time.monotonic()``; infinity if never."""
        return self._next_look

    def look(self) -> None:
        """Look at the page, if that is due."""
        now = time.monotonic()
        if now < self._next_look or self._agreement is None:
            return
        self._follow_ranks(now)
        self._next_look = now + (_SOON if self._checkpoints else _PERIOD)
        if stacks := self._flags.stacks():  # also of ranks that hang, or have yet to begin
            self._agreement.wish(stacks.keys(), stacks[WishKind.STACKS])
        if self._stop.asked:
            return
        wanted = self._flags.debugger(now, self._ranks.debugged)
        if self.counts_steps:  # what is asked for before the first step waits for it
            wanted |= self._flags.wanted(now)
        if wanted:
            why = "; ".join(text for text in wanted.values() if text)
            self._agreement.wish(frozenset(wanted), why)

    def ask(self, kind: WishKind, why: str) -> None:
        """Have all ranks of the job do ``kind``, as its flag on the page does; ``why`` says who
        wants it.
        """
        self.refused.pop(kind, None)
        self._flags.ask(kind, why)

    @property
    def slots(self) -> Sequence[Slot]:
        """The slots of this round's ranks on the page."""
        return self._ranks.slots

    @property
    def counts_steps(self) -> bool:
        """Whether a rank of this node has called ``worker.step`` in this round."""
        return self._ranks.count_steps

    def ends_in_order(self, why: str, seconds: float) -> bool:
        """Whether ranks here come to an end of their own, after the platform has asked this node to
        stop. Call it in each turn until it says no: then a signal is due.

        :param seconds: how long they may take, from the first call on.
        """
        now, stop = time.monotonic(), self._stop
        if self._agreement is None or not (stop.asked or self.counts_steps):
            return False
        if not stop.asked:
            _log.info("%s: ranks of this node end after a step, within %.3g s", why, seconds)
            stop.begin(now, seconds, alone=not self.saves)
            if self.saves:
                self._agreement.wish({WishKind.CHECKPOINT}, why, preempted=True)
        if stop.alone and stop.told is None:
            limit = max(0.0, stop.deadline - now)
            stop.told = self._gates.stop_alone(self._ranks.over, limit, why)
            if stop.told is not None:
                _log.info("ranks of this node stop after step %d", stop.told.step)
        self._next_look = min(self._next_look, now + _PERIOD)
        return stop.goes_on(now, self._ranks.slots, self._ranks.over)

    @property
    def was_told_to_end(self) -> bool:
        """Whether a rank here has come to the step at which this node stops."""
        return self._ranks.came_to(self._stop.told)

    @property
    def stopped(self) -> Asked | None:
        """What ended the last round here, if somebody asked for a stop and a rank came to it."""
        return self.asked_stop if self._ranks.came_to(self.asked_stop) else None

    # The agreement's side.

    def raise_gate(
        self, number: int, kinds: AbstractSet[WishKind], limit: float
    ) -> tuple[int | None, str]:
        """See ``Gates``."""
        if self._agreement is None:
            return None, "no workers run here"
        raised = self._gates.raise_gate(number, limit, self._ranks.over)
        self._wishes[number] = kinds
        return raised.furthest, raised.refusal

    def open_gate(
        self,
        number: int,
        kinds: AbstractSet[WishKind],
        step: int | None,
        resumed: int,
        why: str,
        *,
        debugged: bool,
        ends_within: float | None = None,
        stacks: int = 0,
    ) -> None:
        """See ``Gates``."""
        if self._agreement is None:
            return
        if self.stacks.tell(stacks, why):
            self._flags.stacks_shown()
        self._end_pause(number, resumed, why)
        self._flags.follow_debugger(self._ranks.debugged, debugged=debugged)
        told = on_page(kinds)
        if self._stop.asked and told & (Kinds.CHECKPOINT | Kinds.STOP):
            told |= Kinds.STOP
        elif ends_within is not None and WishKind.CHECKPOINT in kinds:
            told |= Kinds.PAUSE  # what they would do now is lost when their round ends
            self._waits = number, time.monotonic() + ends_within
        asked = self._gates.open_gate(number, step, told, why)
        done = kinds if asked is not None else frozenset[WishKind]()
        wished = self._wishes.pop(number, frozenset())
        if left := {kind for kind in wished if kind.needs_step} - done:
            self.refuse(left, why)
        if asked is not None:
            self._note_decision(number, kinds, asked)
        elif WishKind.CHECKPOINT in kinds:
            self._agreement.checkpoint_over(number, saved=False)

    def refuse(self, kinds: AbstractSet[WishKind], why: str) -> None:
        """See ``Gates``."""
        mine = self._flags.refused(kinds, time.monotonic())
        told = mine - self._told - {WishKind.DEBUGGER_END}
        self._told |= mine & {WishKind.DEBUGGER_START}
        self.refused |= dict.fromkeys(mine, why)
        if told:
            text = f"nothing comes of the wish to {in_words(told)}: {why}"
            _log.warning("%s", text)
            self._observer.steered(text)
        if self._stop.asked and WishKind.CHECKPOINT in kinds and not self._stop.alone:
            _log.warning("no checkpoint before this node ends: %s", why)
            self._stop.alone = True

    def some_ended(self) -> bool:
        """See ``Gates``."""
        return bool(self._ranks.over)

    # What follows.

    def _note_decision(self, number: int, kinds: AbstractSet[WishKind], asked: Asked) -> None:
        _log.info("all ranks %s after step %d: %s", in_words(kinds), asked.step, asked.why)
        self._flags.decided(kinds)
        if WishKind.CHECKPOINT in kinds:
            self._checkpoints.append(AskedCheckpoint(number, asked))
            self._next_look = min(self._next_look, time.monotonic() + _SOON)
        if WishKind.PAUSE in kinds:
            self._pause = number, asked
        # Ranks meet decisions in their order, so the first stop is the one that they come to.
        if self._stop.asked and self._stop.told is None:
            _log.info("ranks of this node stop after step %d", asked.step)
            self._stop.told = asked
        elif WishKind.STOP in kinds and not self._stop.asked and self.asked_stop is None:
            self.asked_stop = asked
            told = f"stops after step {asked.step}: {asked.why}"
            self._observer.steered(told, now=told)

    def _end_pause(self, number: int, resumed: int, why: str) -> None:
        if self._waits is not None and self._waits[0] < resumed:
            self._waits = None
            self._gates.end_pauses(resumed)
        if self._pause is not None and self._pause[0] < resumed:
            self._pause = None
            self._gates.end_pauses(resumed)
            self._observer.steered(f"resumed: {why}", now="runs")
        elif resumed < number:
            return
        self._flags.end_pause()

    def _follow_ranks(self, now: float) -> None:
        ranks = self._ranks
        if (saved := ranks.newly_saved(now)) is not None:
            self._flags.saved(now)
            self._observer.saved(*saved)
        for one in tuple(self._checkpoints):
            if (is_saved := one.is_saved(ranks.slots, ranks.over, now)) is None:
                continue
            self._checkpoints.remove(one)
            self._note_checkpoint(one, saved=is_saved)
        self._note_held()
        if self._waits is not None and now >= self._waits[1]:
            _log.warning("the round did not end in time: its ranks, which have saved, go on")
            self._gates.end_pauses(self._waits[0] + 1)
            self._waits = None

    def _note_checkpoint(self, one: AskedCheckpoint, *, saved: bool) -> None:
        assert self._agreement is not None
        self._agreement.checkpoint_over(one.number, saved=saved)
        if saved:
            self._events.finished_save_checkpoint.set()
            _log.info("the checkpoint of step %d is committed", one.asked.step)
        else:
            text = f"the ranks of this node did not save after step {one.asked.step}"
            _log.warning("%s", text)
            self.refused[WishKind.CHECKPOINT] = text
            self._observer.steered(text)
            self._flags.saved(time.monotonic())

    def _note_held(self) -> None:
        if self._pause and not self._events.paused.is_set() and self._ranks.are_held:
            self._events.paused.set()
            told = f"paused after step {self._pause[1].step}: {self._pause[1].why}"
            self._observer.steered(told, now=told)
