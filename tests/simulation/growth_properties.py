"""What must hold when somebody new comes; a part of ``properties``.

====================  ==============================================================================
newcomers get in      who could be in a round that runs is let in at once; where ranks save before,
                      within the limit
true growth           a verdict that lets somebody in says that a checkpoint was saved before if,
                      and only if, one was that the leader had asked for, or could use
soon after the save   that verdict comes right after the checkpoint, so that nothing is lost but the
                      steps since then
calm growth           where nothing goes wrong, and all ranks call step on and on, they save before
asked seldom          nodes that come and go do not keep the ranks saving
stops count           ranks that are to stop are not started again before the limit
====================  ==============================================================================
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from llutil.rendezvous.protocol.gate_records import Gate, WishKind
from llutil.rendezvous.protocol.records import Record, Stage, Verdict
from tests.simulation.steps import MUCH_TO_DO

if TYPE_CHECKING:
    from tests.simulation.host import Host
    from tests.simulation.world import World

__all__ = ["FOR_NEWCOMERS", "GrowthProperties"]

FOR_NEWCOMERS = "can come in"
"""What a gate's reason says if the leader asks for newcomers."""

_LATE = 24.0
"""Seconds for which a write of somebody who was disturbed may have been on its way."""
_SAVED, _UNSAVED = "a checkpoint was saved before", "nothing was saved"


class GrowthProperties:
    """Watches the newcomers of one world."""

    def __init__(self, world: World) -> None:
        self.world = world
        self._asked: dict[tuple[Stage, str], float] = {}
        """When a leader last asked a round's ranks to save for newcomers."""

    def _fail(self, name: str, detail: str) -> None:
        self.world.properties.fail(name, detail)

    @property
    def _patience(self) -> float:
        return 4 * self.world.properties.slack + 0.5

    @property
    def _limit(self) -> float:
        """Seconds of the world within which a newcomer is let in."""
        rules = self.world.rules
        waits = rules.growth_timeout / 0.97 if rules.saves_before_growth else 0.0
        return waits + self._patience

    # Newcomers

    def joined(self, host: Host) -> None:
        """A member record was put."""
        self.world.at(self.world.now + self._limit, self._in_by_now, host, host.node)

    def _in_by_now(self, host: Host, node: str) -> None:
        world = self.world
        log = world.store.log()
        running = log.running
        gone = node not in world.store.members or host.end is not None or world.store.gone
        if gone or node in log.busy or (running and running.seat(node)):
            return
        if (since := self._since(host)) is None or world.now < since + self._limit:
            again = self._limit if since is None else since + self._limit + 0.01 - world.now
            world.at(world.now + again, self._in_by_now, host, node)
            return
        assert running is not None
        self._fail("newcomers get in", f"{node} could be in {running.stage} since {since:.3f}")

    def _since(self, host: Host) -> float | None:
        """Since when the round that runs could have ended for ``host``; None if it cannot."""
        world, properties = self.world, self.world.properties
        running = world.store.log().running
        if running is None or len(running.seats) >= world.rules.max_nodes:
            return None
        if any(stage == running.stage for stage, _ in properties.reported):
            return None
        leader = next(entry.lease.host for entry in world.store.members.values())
        if not leader.can_act or leader.machine.state.wanted_end or leader.end is not None:
            return None
        sealed = properties.sealed[running.stage][1]
        led = max((leader.joined, *properties.gone.values()))
        return max(sealed, host.joined, leader.disturbed, leader.resumed, led)

    # What the store sees

    def creating(self, record: Record) -> None:
        """The store is about to write ``record``."""
        if not isinstance(record, Gate) or FOR_NEWCOMERS not in record.why:
            return
        rules, place = self.world.rules, (record.stage, record.by)
        if not rules.saves_before_growth:
            self._fail("asked seldom", f"{record}, and nobody wants a checkpoint for newcomers")
        last = self._asked.get(place)
        self._asked[place] = self.world.now
        long_ago = max(0.0, (last or 0.0) - _LATE)
        calm = not any(one.disturbed > long_ago for one in self.world.hosts)
        pause = rules.growth_timeout / 2 / 1.03 - self.world.properties.slack
        if last is not None and calm and self.world.now < last + pause:
            self._fail("asked seldom", f"{record} comes {self.world.now - last:.3f} s after it")

    def growing(self, verdict: Verdict, host: Host) -> None:
        """``host`` is about to end a round so that somebody new gets in."""
        world, state = self.world, host.machine.state
        said = (_SAVED in verdict.why) + 2 * (_UNSAVED in verdict.why)
        wanted = (1, 2) if world.rules.saves_before_growth else (0,)
        if said not in wanted:
            self._fail("true growth", f"{verdict} says it in the wrong way")
        # What is written by who was disturbed may have been decided some time ago.
        old = host.disturbed > max(0.0, world.now - _LATE)
        if said == 0 or old:
            return
        number, since = state.growth.number, state.growth.since
        saved = self._saved(verdict.stage, number)
        if said == 1 and saved is None:
            self._fail("true growth", f"{verdict}, and gate {number} is not saved")
        if said == 1 and saved is not None and saved < world.now - self._patience:
            asked = world.properties.gates.gates.values()
            # While a gate for a stop is open, nobody knows whether somebody can be let in.
            if not any(WishKind.STOP in one.kinds and one.stage == verdict.stage for one in asked):
                self._fail("soon after the save", f"{verdict}, saved at {saved:.3f}")
        limit = world.rules.growth_timeout
        early = since is not None and host.clock() < since + limit and not state.wanted_end
        if early and self._stops(verdict.stage):
            self._fail("stops count", f"{verdict}, and the ranks are to stop")
        if said == 2:
            self._calm_growth(verdict)

    def _saved(self, stage: Stage, number: int) -> float | None:
        """When the checkpoint of that gate was committed, or the first one after it."""
        committed = self.world.saves.committed.items()
        times = [when for (at, gate), when in committed if at == stage and gate >= number]
        return min(times, default=None)

    def _stops(self, stage: Stage) -> bool:
        decisions = self.world.properties.gates.decisions
        known = self.world.store.log().gates.of(stage).agreement
        return known is not None and any(
            WishKind.STOP in one.kinds and place[0] == stage for place, one in decisions.items()
        )

    def _calm_growth(self, verdict: Verdict) -> None:
        """``verdict`` says that nothing was saved."""
        world, steps, saves = self.world, self.world.steps, self.world.saves
        current = world.work.rounds.get(verdict.stage)
        long_ago = max(0.0, world.now - _LATE)
        calm = not any(one.dead or one.disturbed > long_ago for one in world.hosts)
        if not (calm and steps.lockstep and current) or MUCH_TO_DO in verdict.why:
            return
        pages = steps.pages_of(current)
        ranks = [rank for page in pages for rank in page.ranks]
        on_and_on = all(rank.calls > 100 and rank.step > 30 for rank in ranks)
        whole = len(pages) == len(current.assignment.seats) and all(page.alive for page in pages)
        quick = saves.seconds <= 0.3 and max((rank.pace for rank in ranks), default=9) <= 0.2
        deaf = steps.deaf and "did not answer" in verdict.why
        safe = not (saves.fails or saves.unsaid or deaf)
        patient = world.rules.growth_timeout >= 8.0 and not self._stops(verdict.stage)
        if on_and_on and whole and quick and safe and patient:
            self._fail("calm growth", f"{verdict}")
