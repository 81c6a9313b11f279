"""One node of a world: a driver that carries instructions to the store and brings observations
back.

It can crash, freeze, be cut off, and lose its lease without knowing. Its clock has an offset and a
drift of its own. Everything between it and the store takes time, and answers can get lost after a
write was applied, before it was applied, or long before it will be.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from llutil.failure import JobFailure
from llutil.ledgers.protocol import Created, CreateResult, GuardGone, View
from llutil.ledgers.protocol import Record as Stored
from llutil.rendezvous.driver.record_reader import RecordReader
from llutil.rendezvous.driver.record_writer import RecordWriter
from llutil.rendezvous.driver.version_check import VersionCheck
from llutil.rendezvous.protocol import instructions as do
from llutil.rendezvous.protocol import observations as see
from llutil.rendezvous.protocol.gate_records import WishKind
from llutil.rendezvous.protocol.instructions import End, Instruction
from llutil.rendezvous.protocol.record_codec import ForeignRecord
from llutil.rendezvous.protocol.records import Member, Record, Stage
from tests.simulation.properties import DEADLINE
from tests.simulation.store import KEYS, Lease, Store, Watch
from tests.support.rendezvous_values import job_failure

if TYPE_CHECKING:
    from tests.simulation.world import World


_ANY = Stored("", b"", 0)
_REQUESTS = do.Request | do.RenewGeneration | do.DeleteStale | do.DeleteGates | do.Leave


class _Reader(RecordReader):
    """The driver's reader; only what nodes have written need not be decoded each time."""

    def __init__(self, store: Store) -> None:
        super().__init__(KEYS)
        self._store = store

    def decode(self, stored: Stored) -> Record:
        return self._store.meaning.get(stored.value) or super().decode(stored)

    def _name(self, stored: Stored, what: str) -> None:
        """Nobody reads the log of a simulated day."""


@dataclass(frozen=True, slots=True)
class _Writes:
    """What a ``RecordWriter`` needs of a session."""

    store: Store
    guard: str
    records: tuple[Record, ...]
    host: Host

    def create(self, values: Mapping[str, bytes], **_: Any) -> CreateResult:
        return self.store.create(self.guard, values, self.records, self.host)


@dataclass(frozen=True, slots=True)
class _Reads:
    """What a ``RecordWriter`` needs of a ledger."""

    store: Store

    def read(self, scope: str, **_: Any) -> View:
        return self.store.look(scope)


class Host:
    """A node's machine and driver."""

    def __init__(self, world: World, profile: Member) -> None:
        self.world = world
        self.profile = profile
        self.machine = world.machine(world.rules, profile)
        self.offset = 1000.0 * world.random()
        self.rate = 0.97 + 0.06 * world.random()
        self.dead = False
        self.died = float("inf")
        self.cut = False
        self.paused = False
        self.told_gone = False
        """The machine was told that the store has gone for good."""
        self.disturbed = 0.0
        """When this host, or its way to the store, was last not as it should be."""
        self.resumed = 0.0
        """When its lease was last renewed that may have been over by its own clock."""
        self.joined = 0.0
        """When its member record was last put."""
        self.backlog: list[Callable[[], None]] = []
        self.unseen: dict[Watch, Any] = {}
        self.reconnecting: list[Callable[[], None]] = []
        self.lease: Lease | None = None
        self._granted: Lease | None = None
        self.renewed: float | None = None
        """When the newest renewal was sent that the machine has not been told of."""
        self.node = ""
        self.lost = False
        """The present identity is known to be lost."""
        self.reader = _Reader(world.store)
        self.writer = RecordWriter(KEYS, self.reader)
        self.versions = VersionCheck()
        self.watches: dict[str, Watch] = {}
        self.requests: Counter[str] = Counter()
        """What it has sent to the store, but for renewals."""
        self.running: Stage | None = None
        self.starts = 0
        self.ended: tuple[Stage, JobFailure | None] | None = None
        """How its workers ended by themselves, if they did since they were last started."""
        self.end: End | None = None
        self.asked = False
        self.late = False
        """What is sent now will be on its way for long."""
        self._timer = float("inf")

    # Time and observations

    def clock(self) -> float:
        """The host's own monotonic clock."""
        return self.offset + self.rate * self.world.now

    @property
    def can_act(self) -> bool:
        """Whether anything can be expected of it now. A node that is suspended must not act, also
        when the network is back already: it waits for the next renewal of its lease.
        """
        state = self.machine.state
        suspended = self.clock() >= state.renewed + self.world.rules.lease_ttl
        return not (self.dead or self.paused or self.cut or suspended or self.world.full)

    def begin(self) -> None:
        """Start the driver."""
        self.observe(see.Ticked())

    def soon(self, observation: see.Observation) -> None:
        """Let ``observation`` arrive after a delay."""
        self.world.at(self.world.now + self.world.delayed(), self.observe, observation)

    def observe(self, observation: see.Observation) -> None:
        """Feed the machine; later, if the host is frozen."""
        if self.dead or self.end is not None:
            return
        if self.paused:
            self.backlog.append(lambda: self.observe(observation))
            return
        sent = self.renewed
        if sent is not None and sent > self.machine.state.renewed + self.world.rules.lease_ttl / 2:
            self.renewed = None  # to tell every renewal would cost much and change nothing
            self._step(see.LeaseRenewed(sent))
        self._step(observation)

    def _step(self, observation: see.Observation) -> None:
        if isinstance(observation, see.LeaseLost | see.OwnRecordGone):
            self._know_lost(observation)
        elif isinstance(observation, see.LedgerGone):
            self.told_gone = True
        elif isinstance(observation, see.LeaseTaken):
            asked = self.machine.state.pending
            assert asked is not None
            assert asked.ticket == observation.ticket, f"{observation} was not asked for"
            self._hold()
        if self.dead or self.end is not None:
            return
        if self.world.trace is not None and not isinstance(observation, see.LeaseRenewed):
            self.world.note(self.profile.name, f"<- {observation}")
        now = self.clock()
        crash = self.world.crash_due
        for instruction in self.machine.step(observation, now):
            due = crash is not None and crash.due(self, instruction)
            if crash and due and crash.before:
                crash.act(self)
                return
            if self.world.trace is not None:
                self.world.note(self.profile.name, f"-> {instruction}")
            self.late = bool(crash and due and crash.late)
            self._carry_out(instruction, now)
            if crash and due:
                crash.act(self)
                if self.dead:
                    return
        self.world.properties.stepped(self)

    def _know_lost(self, observation: see.LeaseLost | see.OwnRecordGone) -> None:
        asked = self.machine.state.pending
        current = (
            observation.node == self.node
            if isinstance(observation, see.LeaseLost)
            else asked is not None and asked.ticket == observation.ticket
        )
        if current:
            self.lost = True
            for name in [name for name in self.watches if name != "log"]:
                self.world.store.unwatch(self.watches.pop(name))

    def _tick(self, when: float) -> None:
        if when == self._timer:
            self._timer = float("inf")
            self.observe(see.Ticked())

    # Instructions

    def _carry_out(self, instruction: Instruction, now: float) -> None:
        world = self.world
        world.properties.instructed(self, instruction, now)
        if isinstance(instruction, _REQUESTS):
            self.requests[type(instruction).__name__] += 1
        match instruction:
            case do.Wait(until=until):
                when = (until - self.offset) / self.rate + 1e-6
                if until != float("inf") and when != self._timer:
                    self._timer = max(when, world.now + 1e-6)
                    world.at(self._timer, self._tick, self._timer)
                elif until == float("inf"):
                    self._timer = until
            case do.Create():
                self._send(instruction)
            case do.TakeLease() | do.Join() | do.ReadLog() | do.ReadReports() | do.ReadBack():
                self._send(instruction)
            case do.WatchPredecessor(name=name):
                self._watch("predecessor", KEYS.members + name, self._gone_of(name))
            case do.WatchMembers():
                self._watch("members", KEYS.members, self._see_members)
            case do.WatchReports(stage=stage):
                self._watch("reports", KEYS.reports(stage), partial(self._see_reports, stage))
            case do.OpenStore(stage=stage):
                self.soon(see.StoreOpened(stage, self.profile.address, 29500 + stage.round))
            case do.StartWorkers(assignment=assignment, node=node):
                self.running = assignment.stage
                self.starts += 1
                self.ended = None
                world.steps.prepare(self, node, assignment.stage)
                world.at(world.now + world.delayed(), self._started, assignment, node)
            case do.StopWorkers(stage=stage):
                world.at(world.now + world.work.stopping_time(), self._stopped, stage, self.node)
            case do.DeleteStale(before=before):
                if not self.cut:
                    stale = partial(KEYS.stale, before=before)
                    world.at(world.now + world.delayed(), self._delete, stale)
            case do.DeleteGates(stage=stage, number=number, kept=kept, heard=heard):
                if "answers" in self.watches:
                    world.store.unwatch(self.watches.pop("answers"))
                if not self.cut:
                    stale = partial(
                        KEYS.stale_gates, stage=stage, number=number, kept=kept, heard=heard
                    )
                    world.at(world.now + world.delayed(), self._delete, stale, stage)
            case do.WatchAnswers(stage=stage, number=number):
                see_answers = partial(self._see_answers, stage, number)
                self._watch("answers", KEYS.answers(stage, number), see_answers)
            case do.RaiseGate() | do.OpenGate():
                world.steps.instruct(self, instruction)
            case do.Leave():
                self._leave()
            case do.Finish(end=end):
                self.end = end
                self._hush()
            case do.RenewGeneration() | do.CloseStore() | do.RefuseWish():
                pass

    def _see_members(self, view: View) -> None:
        self.observe(see.MembersSeen(self.reader.read_members(view)))

    def _see_reports(self, stage: Stage, view: View) -> None:
        self.observe(see.ReportsSeen(stage, self.reader.read_reports(view)))

    def _see_answers(self, stage: Stage, number: int, view: View) -> None:
        self.observe(see.AnswersSeen(stage, number, self.reader.read_answers(view)))

    def _see_log(self, view: View) -> None:
        log = self.reader.read_history(view)
        self.versions.saw_log(log)
        self.observe(see.LogSeen(log))

    def _gone_of(self, name: str) -> Callable[[View], None]:
        def deliver(view: View) -> None:
            member = self.reader.record_in(view.records[0]) if view.records else None
            try:
                if not self.versions.saw(name, member):
                    self.observe(see.PredecessorGone(name))
            except ForeignRecord as foreign:
                self._refused(foreign)

        return deliver

    def _refused(self, foreign: ForeignRecord) -> None:
        """The driver ends, and gives its lease back."""
        self.world.note(self.profile.name, f"== is refused: {foreign}")
        self.world.properties.refused(self)
        self.end = do.Refused(str(foreign))
        self._hush()
        self._leave()

    def _watch(
        self, name: str, scope: str, deliver: Callable[[View], None], seen: View | None = None
    ) -> None:
        if name in self.watches:
            self.world.store.unwatch(self.watches.pop(name))
        self.requests[f"watch of {name}"] += 1
        self.watches[name] = Watch(scope, deliver, self, seen)
        self.world.store.watch(self.watches[name])

    def _delete(
        self, stale: Callable[[Iterable[str]], tuple[str, ...]], stage: Stage | None = None
    ) -> None:
        store = self.world.store
        known = self.reader.read_log_keys(store.look(KEYS.log))
        if stage is not None:
            known |= self.reader.read_wish_keys(store.look(KEYS.reports(stage)))
        store.delete(stale(known))

    def _leave(self) -> None:
        lease = self.lease
        self.lease = None
        if lease and not self.cut:
            self.world.at(self.world.now + self.world.delayed(), self._revoke, lease)

    def _revoke(self, lease: Lease) -> None:
        if lease.alive:
            self.world.store.revoke(lease)

    # Requests

    def _send(self, request: do.Request) -> None:
        """On its way to the store; perhaps in vain, perhaps for longer than the driver waits for an
        answer.
        """
        world = self.world
        doubtful = self.late or (world.doubt and world.random() < world.doubt)
        if doubtful:
            self.disturb(world.now + DEADLINE)
        kind = world.rng.randrange(3) if doubtful else -1
        if self.late:
            kind = 2
        if self.cut or kind == 0:
            self.disturb(world.now + DEADLINE)
            world.at(world.now + DEADLINE, self.observe, see.Unanswered(request.ticket))
            return
        guard, lease, sent = self.node, self.lease, self.clock()
        answered = kind == -1
        delay = (
            world.delayed() if kind != 2 else DEADLINE + world.rng.choice((3, 12)) * world.random()
        )
        world.at(world.now + delay, self._apply, request, guard, lease, sent, answered)
        if not answered:
            world.at(world.now + DEADLINE, self.observe, see.Unanswered(request.ticket))

    def _apply(
        self, request: do.Request, guard: str, lease: Lease | None, sent: float, answered: bool
    ) -> None:
        full = self.world.full and isinstance(request, do.TakeLease | do.Join | do.Create)
        if full or self.world.store.gone:
            self.disturb(self.world.now + DEADLINE)
            if answered:
                unanswered = see.Unanswered(request.ticket)
                self.world.at(self.world.now + DEADLINE, self.observe, unanswered)
            return
        try:
            answer = self._answer(request, guard, lease, sent, answered)
        except ForeignRecord as foreign:
            if not self.dead and self.end is None:
                self._refused(foreign)
            return
        if answered and not self.dead:
            if self.cut:
                self.disturb(self.world.now + DEADLINE)
                self.world.at(
                    self.world.now + DEADLINE, self.observe, see.Unanswered(request.ticket)
                )
            else:
                self.soon(answer)

    def _answer(
        self, request: do.Request, guard: str, lease: Lease | None, sent: float, answered: bool
    ) -> see.Observation:
        store, ticket = self.world.store, request.ticket
        match request:
            case do.TakeLease():
                self._granted = store.grant(self)
                return see.LeaseTaken(ticket, sent)
            case do.Join(member=member):
                assert lease
                older = store.join(lease, member)
                if older is None:
                    return see.LeaseLost(member.node)
                self.world.properties.joined(self)
                log = store.look(KEYS.log)
                if answered and not self.dead and "log" not in self.watches:
                    self._watch("log", KEYS.log, self._see_log, log)
                names = tuple(one.name for one in older if self.reader.has_lease(one))
                if answered:
                    self.versions.joined(member.node, names, self.reader.newest_of_log(log))
                return see.Joined(ticket, names, self.reader.read_history(log))
            case do.ReadLog():
                return see.LogRead(ticket, self.reader.read_history(store.look(KEYS.log)))
            case do.ReadReports(stage=stage):
                view = store.look(KEYS.reports(stage))
                return see.ReportsRead(ticket, stage, self.reader.read_reports(view))
            case do.ReadBack(record=record):
                return see.Found(ticket, self.writer.find(_Reads(store), record, 0.0))
            case do.Create(records=records):
                session = _Writes(store, guard, records, self)
                written = self.writer.create(session, records, _ANY, "", 0.0)
                match written:
                    case Created():
                        return see.Created(ticket)
                    case GuardGone():
                        return see.OwnRecordGone(ticket)
                    case there:
                        return see.Existed(ticket, there)

    def _hold(self) -> None:
        assert self._granted
        lease = self.lease = self._granted
        self.lost = False
        self.node = f"{self.profile.name}.{self.machine.state.identities + 1}"
        self.world.at(self.world.now + self.world.rules.lease_ttl / 3, self._renew, lease)

    def _renew(self, lease: Lease) -> None:
        """The background renewal: every third of the lease's life, unless frozen or cut off."""
        if self.dead or self.lease is not lease:
            return
        if not self.cut and not self.paused:
            if not lease.alive:
                self.soon(see.LeaseLost(self.node))
                return
            lease.until = self.world.now + self.world.rules.lease_ttl
            self.renewed = self.clock()
            if self.machine.state.suspended(self.renewed):
                self.resumed = self.world.now
                self.soon(see.Ticked())  # it was suspended, or believes so since it was not told
        self.world.at(self.world.now + self.world.rules.lease_ttl / 3, self._renew, lease)

    # Workers

    def _started(self, assignment: Any, node: str) -> None:
        if not self.dead and self.running == assignment.stage:
            self.world.work.start(self, node, assignment)

    def _stopped(self, stage: Stage, node: str) -> None:
        if self.dead:
            return
        if self.paused:
            self.backlog.append(lambda: self._stopped(stage, node))
            return
        if self.running == stage:
            self.running = None
        self.world.work.gone(stage, node)
        self.observe(see.WorkersStopped(stage))

    def workers_ended(self, stage: Stage, succeeded: bool, fatal: bool, echo: bool) -> None:
        """All workers succeeded, or one failed and the rest were ended; ``echo``: since a peer's
        had.
        """
        if self.running == stage:
            self.running = None
            why = "a peer is gone" if echo else "ValueError: bad luck"
            told = (
                None
                if succeeded
                else job_failure(why, fatal=fatal, echo=echo, label=self.profile.name)
            )
            self.ended = (stage, told)
            self.observe(see.WorkersEnded(stage, told))
            if self.world.torchrun and (succeeded or fatal):
                self.ask(stop=False, linger=float("inf") if succeeded else 5.0)

    # Mishaps

    def disturb(self, until: float) -> None:
        """Until then, it is not as it should be."""
        self.disturbed = max(self.disturbed, until)

    def crash(self, *, guarded: bool) -> None:
        """The process is gone. A guardian releases its lease at once; without one, it expires."""
        if self.dead or self.end is not None:
            return
        self.world.note(self.profile.name, f"== crashes, guarded={guarded}")
        self.dead, self.died = True, self.world.now
        self._hush()
        if self.running:
            self.world.work.gone(self.running, self.node)
        if guarded and self.lease and not self.cut:
            self.world.at(self.world.now + self.world.delayed(), self._revoke, self.lease)

    def freeze(self) -> None:
        """SIGSTOP: nothing is renewed, nothing is seen; the clock goes on."""
        self.world.note(self.profile.name, "== freezes")
        self.paused = True
        self.disturb(self.world.now)

    def thaw(self) -> None:
        """SIGCONT: all that has piled up is seen, in any order."""
        self.world.note(self.profile.name, "== thaws")
        self.paused = False
        self.disturb(self.world.now)
        backlog, self.backlog = self.backlog, []
        backlog += [partial(self._see, watch) for watch in self.unseen]
        self.world.rng.shuffle(backlog)
        for late in backlog:
            late()

    def _see(self, watch: Watch) -> None:
        seen = self.unseen.pop(watch)
        if watch.open:
            watch.deliver(seen)

    def cut_off(self) -> None:
        """The network to the store is gone."""
        self.world.note(self.profile.name, "== cut off")
        self.cut = True
        self.disturb(self.world.now)

    def reconnect(self) -> None:
        """The network is back, unless nobody is there to be reached."""
        if self.world.store.gone:
            return
        self.world.note(self.profile.name, "== reconnects")
        self.cut = False
        self.disturb(self.world.now)
        waiting, self.reconnecting = self.reconnecting, []
        for resume in waiting:
            resume()

    def lose_store(self) -> None:
        """The store has gone for good. Most hosts are told, some time later; others have only their
        clock.
        """
        self.cut = True
        self.disturb(float("inf"))
        rng = self.world.gone_rng
        if rng.random() < 0.8:
            delay = rng.choice((0.1, 1.0, 8.0)) * rng.random()
            gone = see.LedgerGone("its server went away")
            self.world.at(self.world.now + delay, self.observe, gone)

    def on_reconnect(self, resume: Callable[[], None]) -> None:
        """Call ``resume`` when the network is back."""
        self.reconnecting.append(resume)

    def taken_for_dead(self) -> None:
        """The store ends the lease, though the node lives."""
        self.world.note(self.profile.name, "== is taken for dead")
        self.disturb(self.world.now + self.world.rules.lease_ttl)
        if self.lease:
            self._revoke(self.lease)

    def ask(self, *, stop: bool, linger: float = 0.0) -> None:
        """Somebody asks the node to stop the job, or to leave."""
        if not self.dead and self.end is None:
            self.asked = True
            self.observe(see.EndRequested("somebody said so", stop, linger))

    def wish(self, kinds: frozenset[WishKind], *, preempted: bool = False) -> None:
        """Somebody wishes something of all ranks."""
        if not self.dead and self.end is None:
            self.world.note(self.profile.name, f"== {sorted(kinds)} is wished")
            self.world.properties.gates.wished(self, kinds)
            self.observe(see.WishMade(kinds, "somebody said so", preempted))

    def _hush(self) -> None:
        for watch in self.watches.values():
            self.world.store.unwatch(watch)
        self.watches = {}
