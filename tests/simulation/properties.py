"""What must hold, checked at every step, each under a name. What concerns gates is in
``gate_properties``, what concerns newcomers in ``growth_properties``.

=========================  =========================================================================
one membership             a round has one membership for ever, and nobody acts on another one
size                       every round has min_nodes to max_nodes members
ranks                      the ranks of a round are distinct and complete, and all nodes agree on
                           them
one open generation        a generation is opened only when all earlier ones are marked as over
lost nodes do not act      who knows that its lease is lost, or may be, joins, writes and starts
                           nothing
lost members end rounds    a member lost before it reported ends the round at once, also if lost
                           before the seal
failures end rounds        a failure ends the round at once, whether restarts are left or not
survivors get in           a member of the last round that lives is in the next, unless the last
                           call is over
true verdicts              each verdict is one that the reports and the members support
budget                     a failed round is charged once at most, a membership change never; a
                           failure ends the job only if no restart is left for it, and all members
                           are back or had time to be lost
told failures              a verdict and a marker tell a failure in its member's own words, and the
                           cause, not an echo
late nodes                 after a success under its token, a node does nothing; under another, it
                           is not turned away
waits end                  every wait has a deadline while no round runs, and everybody comes to an
                           end
jobs finish                a job that can succeed does
strays                     who comes into a run of its own version is not refused, whatever others
                           have put among its records
known ends are told        a node that gives up since the ledger takes no word of it tells how its
                           own workers ended
gone ledgers               who is told that the ledger has gone for good asks it nothing more, waits
                           for nothing without workers, and lets workers train on
leaving                    under torchrun, who leaves after a success has told it, and serves its
                           round until that is over
results                    a node ends with success if, and only if, the whole job succeeded with it
workers                    a node starts workers only when its earlier ones are gone
=========================  =========================================================================
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from llutil.failure import JobFailure
from llutil.rendezvous.protocol import instructions as do
from llutil.rendezvous.protocol.instructions import Instruction
from llutil.rendezvous.protocol.observations import Ticked
from llutil.rendezvous.protocol.records import (
    Assignment,
    Cause,
    Marker,
    Record,
    Report,
    ReportKind,
    Stage,
    Verdict,
)
from tests.simulation.gate_properties import GateProperties
from tests.simulation.growth_properties import GrowthProperties

if TYPE_CHECKING:
    from tests.simulation.host import Host
    from tests.simulation.world import World

__all__ = ["Broken", "Properties"]

_FOREVER = float("inf")
DEADLINE = 2.0
"""Seconds after which a node's driver gives a request up."""


class Broken(AssertionError):
    """A property does not hold."""

    def __init__(self, name: str, detail: str) -> None:
        self.name = name
        super().__init__(f"{name}: {detail}")


class Properties:
    """Watches one world. It sees everything, which no node can."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.sealed: dict[Stage, tuple[Assignment, float]] = {}
        self.verdicts: dict[Stage, tuple[Verdict, float]] = {}
        self.markers: dict[int, Marker] = {}
        self.reported: dict[tuple[Stage, str], tuple[Report, float]] = {}
        self.back: dict[tuple[Stage, str], float] = {}
        self.gone: dict[str, float] = {}
        self.led: dict[str, Host] = {}
        self.ranks: dict[Stage, dict[int, str]] = {}
        self.unrecorded: set[Stage] = set()
        """Rounds of several nodes that a node called a success before any verdict."""
        self.must_be_late: set[Host] = set()
        self.must_not_be_late: dict[Host, int] = {}
        self.hopeful = False
        """Whether nothing in the schedule can keep the job from success, but too few nodes."""
        self.calm = False
        """Whether the agents are torch's own, and nothing at all goes wrong."""
        self.veterans = 0
        """How many of the hosts belong to an earlier life of the run, and do not count any more."""
        self.gates = GateProperties(world)
        self.growth = GrowthProperties(world)
        self.slack = 24 * world.delay
        """The most that a node's view lags behind, and the most that a few messages take."""

    def fail(self, name: str, detail: str) -> None:
        """A property does not hold."""
        raise Broken(name, f"at {self.world.now:.3f} s: {detail}")

    # What the store sees

    def creating(self, records: tuple[Record, ...], host: Host) -> None:
        """The store is about to write ``records``, for ``host``."""
        if self.world.store.gone:
            self.fail("gone ledgers", f"{records} are written")
        for record in records:
            if self._again(record):
                # An attempt that was on its way for long, and comes after its round was swept.
                continue
            match record:
                case Assignment():
                    self._sealing(record, host)
                case Verdict():
                    self._ending(record, host)
                case Marker():
                    self._marking(record, host)
                case Report(say=ReportKind.BACK):
                    self.back[record.stage, record.node] = self.world.now
                case Report(
                    say=ReportKind.SUCCEEDED | ReportKind.FAILED as say, stage=stage, node=node
                ):
                    self.reported[stage, node] = (record, self.world.now)
                    if say is ReportKind.FAILED:
                        due = self.world.now + self.world.rules.cause_wait * 1.1 + self._patience()
                        self.world.at(due, self._ended_by_now, stage, node)
                case _:
                    self.gates.creating(record)
                    self.growth.creating(record)

    def _again(self, record: Record) -> bool:
        match record:
            case Assignment():
                known: Record | None = self.sealed.get(record.stage, (None,))[0]
            case Verdict():
                known = self.verdicts.get(record.stage, (None,))[0]
            case _:
                return False
        return known == record

    def joined(self, host: Host) -> None:
        """A member record was put."""
        host.joined = self.world.now
        self.growth.joined(host)
        if host.machine.state.ignored_generation is not None or host in self.must_be_late:
            return
        log = self.world.store.log()
        marker, token = log.marker, host.profile.token
        if log.last is not None or marker is None or marker.cause is not Cause.SUCCEEDED:
            return
        if token and token in marker.tokens:
            self.must_be_late.add(host)
        elif self.must_not_be_late.get(host) is None:
            self.must_not_be_late[host] = marker.generation

    def lost(self, node: str) -> None:
        """A member record is gone."""
        world = self.world
        self.gone[node] = world.now
        for stage in sorted(self.sealed.keys() - self.verdicts.keys()):
            if node in self.sealed[stage][0].nodes:
                world.at(world.now + self._patience(), self._ended_by_now, stage, node)

    def _patience(self) -> float:
        return 4 * self.slack + 0.5

    def _ended_by_now(self, stage: Stage, node: str) -> None:
        """``node`` failed, or was lost from the round, some time ago: has the leader noticed, if it
        could?
        """
        world = self.world
        over = stage in self.verdicts or stage.generation in self.markers or world.store.gone
        report = self.reported.get((stage, node))
        if over or (report and report[0].say is ReportKind.SUCCEEDED):
            return
        leader = next((entry.lease.host for entry in world.store.members.values()), None)
        if leader is None or leader.end is not None:
            return  # whoever comes next must see to it, and somebody who waits will say so
        since = max(leader.disturbed, leader.resumed, self._led_since(leader))
        patience = self._patience() + (world.rules.cause_wait * 1.1 if report else 0.0)
        if not leader.can_act or world.now < since + patience:
            world.at(world.now + patience, self._ended_by_now, stage, node)
            return
        if leader.machine.state.wanted_end:
            return
        name, what = (
            ("failures end rounds", "failed in")
            if report
            else ("lost members end rounds", "was lost from")
        )
        self.fail(name, f"{node} {what} {stage}, and the leader {leader.profile.name} let it run")

    def _led_since(self, leader: Host) -> float:
        return max((leader.joined, *self.gone.values()))

    def _sealing(self, new: Assignment, host: Host) -> None:
        world, stage = self.world, new.stage
        if stage in self.sealed:
            self.fail("one membership", f"{stage} is sealed a second time")
        self.sealed[stage] = (new, world.now)
        rules = world.rules
        if not rules.min_nodes <= len(new.seats) <= rules.max_nodes:
            self.fail("size", f"{stage} has {len(new.seats)} members")
        nodes = new.nodes
        if len(set(nodes)) != len(nodes):
            self.fail("ranks", f"{stage} has a member twice: {nodes}")
        if new.by not in nodes:
            self.fail("size", f"{stage} is without the host of its store")
        opened = {s.generation for s in self.sealed}
        if still := [g for g in opened if g < stage.generation and g not in self.markers]:
            self.fail("one open generation", f"{stage} is sealed while {still} are open")
        if stage.generation in self.markers:
            self.fail("one open generation", f"{stage} is sealed after its generation's end")
        last = Stage(stage.generation, stage.round - 1)
        if last in self.sealed:
            self._follows(self.sealed[last][0], new, host)
        elif new.restarts != 0 or stage.round != 1:
            self.fail("budget", f"{stage} begins with {new.restarts} restarts")
        for node in nodes:
            if node not in world.store.members:
                world.at(world.now + self._patience(), self._ended_by_now, stage, node)

    def _follows(self, old: Assignment, new: Assignment, host: Host) -> None:
        world = self.world
        if old.stage not in self.verdicts:
            self.fail("one membership", f"{new.stage} is sealed while {old.stage} runs")
        verdict, when = self.verdicts[old.stage]
        living = set(world.store.members)
        early = world.now - when < world.rules.last_call * 0.9
        for node in old.nodes:
            back = self.back.get((old.stage, node), _FOREVER)
            if host.disturbed > when:
                back = _FOREVER  # what is written now was decided some time ago
            in_time = early or back < world.now - self.slack
            if node in living and node not in new.nodes and in_time:
                self.fail("survivors get in", f"{node} lives and is not in {new.stage}")
        charged = new.restarts - old.restarts
        # Cut off, the leader may have decided on what it saw before.
        everybody = host.disturbed > when or all(
            node in living
            or (old.stage, node) in self.back
            or self.gone[node] > world.now - self.slack
            for node in old.nodes
        )
        if new.restarts == 0 and not living & set(old.nodes):
            return  # nobody of the last round is left: a fresh budget
        if charged not in (0, 1):
            self.fail("budget", f"{old.restarts} restarts in {old.stage}, {new.restarts} next")
        if charged and (verdict.cause is not Cause.FAILED or not everybody):
            self.fail("budget", f"{new.stage} charges a round that ended as {verdict.cause}")
        if not charged and verdict.cause is Cause.FAILED and set(old.nodes) <= set(new.nodes):
            self.fail("budget", f"{new.stage} does not charge the failure of {old.stage}")
        if world.rules.max_restarts is not None and new.restarts > world.rules.max_restarts:
            self.fail("budget", f"{new.restarts} restarts in {new.stage}")

    def _ending(self, verdict: Verdict, host: Host) -> None:
        world, stage = self.world, verdict.stage
        if stage in self.verdicts and max(self.sealed) > stage:
            return  # an attempt that was on its way for long: nobody looks at this round any more
        if stage in self.verdicts:
            self.fail("true verdicts", f"{stage} has a second verdict")
        if stage not in self.sealed:
            self.fail("true verdicts", f"a verdict on {stage}, which was never sealed")
        self.verdicts[stage] = (verdict, world.now)
        if stage in self.unrecorded and verdict.cause is not Cause.SUCCEEDED:
            self.fail("results", f"{stage} ends as {verdict.cause}; a node has called it a success")
        assignment = self.sealed[stage][0]
        says = {n: self.reported.get((stage, n)) for n in assignment.nodes}
        succeeded = {n for n, r in says.items() if r and r[0].say is ReportKind.SUCCEEDED}
        match verdict.cause:
            case Cause.SUCCEEDED:
                alone = len(says) == 1 and host.ended == (stage, None)
                if len(succeeded) < len(says) and not alone:
                    self.fail("true verdicts", f"{stage}: not everybody has reported success")
            case Cause.LOST:
                for node in verdict.nodes:
                    if node in world.store.members or node in succeeded:
                        self.fail("true verdicts", f"{stage}: {node} lives, or had succeeded")
            case Cause.GROWN:
                older = [n for n in succeeded if says[n][1] < world.now - self.slack]  # type: ignore[index]  # succeeded: it has one
                if world.now < host.disturbed + DEADLINE + 2:
                    older = []  # what is written now may have been decided some time ago
                if older or len(says) >= world.rules.max_nodes:
                    self.fail("true verdicts", f"{stage}: nobody may come in any more")
                self.growth.growing(verdict, host)
            case Cause.FAILED:
                self._failing(verdict, host)
            case _:
                pass

    def _failing(self, verdict: Verdict, host: Host) -> None:
        stage = verdict.stage
        failures = [
            r
            for (s, _), (r, _) in self.reported.items()
            if s == stage and r.say is ReportKind.FAILED
        ]
        if not failures:
            self.fail("true verdicts", f"{stage}: nobody has reported a failure")
        if verdict.final and not any(r.job_failure and r.job_failure.fatal for r in failures):
            self.fail("budget", f"{stage} ends the job, and a member may turn out to be lost")
        self._telling(stage, verdict.job_failure, host)

    def _telling(self, stage: Stage, told: JobFailure | None, host: Host) -> None:
        """A member's own words go with the verdict and with the marker, and name the cause."""
        failures = {
            report.job_failure: when
            for (s, _), (report, when) in self.reported.items()
            if s == stage and report.say is ReportKind.FAILED
        }
        if told not in failures:
            self.fail("told failures", f"{stage}: no member said what the job is said to fail of")
        if (
            not told
            or told.fatal
            or not told.echo
            or self.world.now < host.disturbed + DEADLINE + 2
        ):
            return  # what is written now may have been decided some time ago
        known = [one for one, when in failures.items() if when < self.world.now - self.slack]
        if not all(one and one.echo for one in known):
            self.fail("told failures", f"{stage}: an echo is told, and its cause is known")

    def _used_up(self, marker: Marker, host: Host) -> None:
        """The job fails for good, after a failure that another start could have mended."""
        world, stage = self.world, marker.stage
        if marker.job_failure and marker.job_failure.fatal:  # it was told after the verdict
            self._telling(stage, marker.job_failure, host)
            return
        if world.torchrun:
            self._too_few(marker, host)
            return
        assignment, (verdict, when) = self.sealed[stage][0], self.verdicts[stage]
        if verdict.cause is not Cause.FAILED:
            self.fail("true verdicts", f"the job failed, and {stage} ended as {verdict.cause}")
        if assignment.restarts != world.rules.max_restarts:
            self.fail("budget", f"{stage} ends the job, and restarts are left")
        self._telling(stage, marker.job_failure, host)
        early = world.now - when < world.rules.loss_known_after * 0.9
        for node in assignment.nodes:
            if early and (stage, node) not in self.back:
                self.fail("budget", f"{stage} ends the job, and {node} may turn out to be lost")
            late = (
                world.now < host.disturbed + DEADLINE + 2
            )  # it may have been decided some time ago
            if not late and self.gone.get(node, _FOREVER) < world.now - self.slack:
                self.fail("budget", f"{stage} ends the job, and {node} was lost")
            if when > host.disturbed + DEADLINE and self._died(node) < when:
                self.fail("budget", f"{stage} ends the job, and {node} had died before its verdict")

    def _too_few(self, marker: Marker, host: Host) -> None:
        """The job fails because who has succeeded does not run again."""
        seats = self.sealed[marker.stage][0].nodes
        done = [node for node in seats if self._succeeded(marker.stage, node)]
        known = self.world.now - self.slack
        here = [h.node for h in self.world.hosts if h.joined < known]
        living = [node for node in here if node in self.world.store.members]
        possible = {*seats, *living}.difference(done)
        calm = self.world.now > host.disturbed + DEADLINE + 2  # else it may be an old decision
        if calm and (not done or len(possible) >= self.world.rules.min_nodes):
            self.fail("jobs finish", f"{marker.stage} ends the job, and {possible} could go on")

    def _succeeded(self, stage: Stage, node: str) -> bool:
        report = self.reported.get((stage, node))
        return report is not None and report[0].say is ReportKind.SUCCEEDED

    def _well_after_all(self, stage: Stage) -> bool:
        """Whether all members had succeeded when the verdict said otherwise, as torch's agents may
        have.
        """
        marker, seats = self.markers.get(stage.generation), self.sealed[stage][0].nodes
        marked = marker is not None and marker.cause is Cause.SUCCEEDED
        return self.world.torchrun and marked and all(self._succeeded(stage, n) for n in seats)

    def _died(self, node: str) -> float:
        """When the host of ``node`` crashed; its lease may have outlived it."""
        return next((host.died for host in self.world.hosts if host.node == node), _FOREVER)

    def _marking(self, marker: Marker, host: Host) -> None:
        if marker.generation in self.markers:
            self.fail("one open generation", f"generation {marker.generation} ends twice")
        self.markers[marker.generation] = marker
        for stage in self.sealed:
            if stage.generation == marker.generation and stage not in self.verdicts:
                self.fail("true verdicts", f"{stage} has no verdict, and its generation is over")
        last = self.verdicts.get(marker.stage)
        if marker.cause is Cause.FAILED and not (last and last[0].final):
            self._used_up(marker, host)

    # What a node does

    def instructed(self, host: Host, instruction: Instruction, now: float) -> None:
        """``host`` is about to carry out ``instruction``; ``now`` is its own clock."""
        if host.told_gone:
            self._after_the_ledger(host, instruction)
        self.gates.instructed(host, instruction)
        match instruction:
            case do.StartWorkers(assignment=assignment, node=node):
                self._acting(host, instruction, now)
                self._starting(host, assignment, node)
            case do.Create() | do.Join():
                self._acting(host, instruction, now)
            case do.Wait(until=until):
                self._waiting(host, instruction, until, now)
            case do.Finish(end=end):
                self._finishing(host, end)
            case _:
                pass

    def _acting(self, host: Host, instruction: Instruction, now: float) -> None:
        state = host.machine.state
        old = state.renewed + self.world.rules.lease_ttl
        if host.lost or now >= old:
            kind = type(instruction).__name__
            self.fail(
                "lost nodes do not act",
                f"{host.profile.name}: {kind}, "
                f"{'and knows that it is lost' if host.lost else 'suspended'}",
            )

    def _after_the_ledger(self, host: Host, instruction: Instruction) -> None:
        """``host`` knows that the ledger has gone for good."""
        state, kind = host.machine.state, type(instruction).__name__
        match instruction:
            case do.Wait(why=why):
                wrong = state.idle and not state.finished
                what = f"waits without workers: {why}"
            case do.StopWorkers(stage=stage, why=why):
                wrong = not (host.asked or host.lost or state.log.is_over(stage))
                what = f"stops workers that could train on: {why}"
            case do.CloseStore() | do.Finish() | do.OpenGate() | do.RefuseWish():
                return
            case _:
                wrong, what = True, f"{kind}: {instruction.why}"
        if wrong:
            self.fail("gone ledgers", f"{host.profile.name} {what}")

    def _starting(self, host: Host, assignment: Assignment, node: str) -> None:
        stage = assignment.stage
        if self.sealed.get(stage, (None,))[0] != assignment:
            self.fail("one membership", f"{node} acts on a {stage} that was never sealed so")
        if node != host.node or host.running is not None:
            self.fail("workers", f"{host.profile.name} starts {node} while it runs {host.running}")
        if host in self.must_be_late:
            self.fail("late nodes", f"{node} came after the success of its token, and starts")
        place = assignment.ranks_of(node)
        taken = self.ranks.setdefault(stage, {})
        for rank in range(place.first_rank, place.first_rank + place.nproc):
            if taken.setdefault(rank, node) != node or not 0 <= rank < place.world_size:
                self.fail("ranks", f"rank {rank} of {stage} is {taken[rank]}'s and {node}'s")

    def _waiting(self, host: Host, wait: do.Wait, until: float, now: float) -> None:
        state = host.machine.state
        if until <= now:
            self.fail("waits end", f"{host.profile.name} waits until the past: {wait}")
        if until == _FOREVER and not state.finished and state.idle:
            stage = state.log.stage
            if stage not in self.sealed or state.log.running is None:
                self.fail("waits end", f"{host.profile.name} waits for ever: {wait.why}")

    def _finishing(self, host: Host, end: do.End) -> None:
        name = host.profile.name
        marker = self.world.store.log().marker
        if isinstance(end, do.GaveUp):
            self._giving_up(host, end)
        if isinstance(end, do.FinishedWell) and not end.recorded:
            self._finishing_unrecorded(host, end.assignment)
        elif isinstance(end, do.FinishedWell):
            stage = end.assignment.stage
            verdict = self.verdicts.get(stage)
            well = verdict and verdict[0].cause is Cause.SUCCEEDED
            if not well and not self._well_after_all(stage):
                self.fail("results", f"{name} ends with success, and {stage} did not")
            alone = len(end.assignment.seats) == 1 and host.ended == (stage, None)
            reported = any((stage, node) in self.reported for node in self._identities(host))
            if not reported and not alone:
                self.fail("results", f"{name} ends with success, and reported none")
        if isinstance(end, do.Left) and host.machine.state.linger == _FOREVER:
            self._leaving(host)
        if isinstance(end, do.Late):
            met = self.must_not_be_late.get(host, 0)
            if marker is None or marker.cause is not Cause.SUCCEEDED or marker.generation <= met:
                self.fail("late nodes", f"{name} is turned away, and should not be: {end.why}")
        elif host in self.must_be_late and not isinstance(end, do.GaveUp) and not host.asked:
            self.fail("late nodes", f"{name} should end as late, and ends as {end}")

    def _finishing_unrecorded(self, host: Host, round_: Assignment) -> None:
        """All ranks of the round are known to have succeeded, and nobody has said otherwise."""
        name, stage = host.profile.name, round_.stage
        verdict = self.verdicts.get(stage)
        certain = len(round_.seats) > 1 or self.world.rules.max_nodes > 1
        if certain and verdict and verdict[0].cause is not Cause.SUCCEEDED:
            self.fail("results", f"{name} ends with success, and {stage} did not")
        if host.ended != (stage, None):
            self.fail("results", f"{name} ends with success, and its own workers did not")
        if round_.nodes == (host.node,):
            return
        self.unrecorded.add(stage)
        says = [self.reported.get((stage, node)) for node in round_.nodes]
        if not all(one and one[0].say is ReportKind.SUCCEEDED for one in says):
            self.fail("results", f"{name} ends with success, and not all members reported it")

    def _giving_up(self, host: Host, end: do.GaveUp) -> None:
        name, told = host.profile.name, end.outcome
        if end.gone and not host.told_gone:
            self.fail("gone ledgers", f"{name} takes the ledger for gone, and nobody said so")
        if told is not None and host.ended != (told.stage, told.job_failure):
            self.fail("known ends are told", f"{name} tells {told}, and it was {host.ended}")
        if told is not None or host.ended is None or host.machine.state.outcome is None:
            return
        if host.ended[0] not in self.verdicts:
            self.fail("known ends are told", f"{name} gives up, and does not tell {host.ended}")

    def refused(self, host: Host) -> None:
        """``host`` ends since it takes the run for one of another version."""
        self.hopeful = False
        for node in self.world.store.members:
            if node == host.node:
                break
            self.fail("strays", f"{host.profile.name} is refused, and {node} was there before it")

    def _leaving(self, host: Host) -> None:
        mine = host.machine.state.succeeded
        disturbed = self.world.now < host.disturbed + self.world.rules.lease_ttl + DEADLINE
        if mine is None or mine.stage in self.verdicts or disturbed:
            return
        name = host.profile.name
        if not self._succeeded(mine.stage, host.node):
            self.fail("leaving", f"{name} leaves, and nobody knows that it has succeeded")
        others = [node for node in mine.nodes if node in self.world.store.members]
        if mine.by == host.node and others != [host.node]:
            self.fail("leaving", f"{name} leaves, whose store {others} still use")

    def _identities(self, host: Host) -> list[str]:
        return [f"{host.profile.name}.{n + 1}" for n in range(host.machine.state.identities)]

    def stepped(self, host: Host) -> None:
        """``host`` has carried out all instructions of a step."""
        state = host.machine.state
        if host.lost and host.running is not None and state.workers.name == "RUNNING":
            self.fail(
                "lost nodes do not act", f"{host.profile.name} is lost, and its workers run on"
            )

    # What must have come of it

    def at_rest(self) -> None:
        """Nothing more will happen."""
        world = self.world
        for host in world.hosts:
            if not host.dead and host.end is None:
                wait = host.machine.step(Ticked(), host.clock())[-1]
                self.fail("waits end", f"{host.profile.name} has not finished: {wait}")
        alive = [host for host in world.hosts[self.veterans :] if not host.dead and not host.asked]
        newest = self.markers.get(max(self.markers, default=0))
        ends = {host.profile.name: host.end for host in alive}
        grown = any(verdict.cause is Cause.GROWN for verdict, _ in self.verdicts.values())
        calm = self.calm and not grown and self.veterans == 0
        if calm and newest and newest.cause is not Cause.SUCCEEDED:
            self.fail("jobs finish", f"nothing went wrong, and it ended as {newest.cause}")
        if self.hopeful and len(alive) >= world.rules.min_nodes:
            if newest is None or newest.cause is not Cause.SUCCEEDED:
                self.fail("jobs finish", f"the job ended as {newest and newest.cause}: {ends}")
            if bad := [n for n, e in ends.items() if not isinstance(e, do.FinishedWell | do.Late)]:
                self.fail("jobs finish", f"the job succeeded, and {bad} did not: {ends}")
