"""How a fault is done, and undone.

``Faults`` is told the time, and strikes what is due. This module may import nothing but the
standard library, ``tests.support`` and its neighbours here.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from tests.soak import victims
from tests.soak.deployment import Deployment, Member
from tests.soak.plan import Fault, Kind
from tests.soak.victims import Victim
from tests.support.networks import Host

__all__ = ["Faults", "Strike"]

_PATIENCE = 4.0
"""How long a fault waits for a victim, in seconds. None is there between two jobs."""
_DELAY, _LOSS = 0.04, 0.05
_CHUNK = 1 << 16


@dataclass(slots=True)
class Strike:
    """A fault that was done ``at`` this time of the monotonic clock. ``jobs`` are the folders of
    those that it concerns: the victim's, or all that ran. It is over at the time ``until``, and
    ``undo`` is what has to be done then.
    """

    fault: Fault
    victim: str
    jobs: tuple[str, ...]
    at: float
    until: float
    undo: Callable[[], object] | None = None

    def __str__(self) -> str:
        lasts = f" for {self.fault.seconds:.1f} s" if self.fault.seconds else ""
        return f"fault {self.fault.number}: {self.fault.kind}, {self.victim}{lasts}"


class Faults:
    """The faults of a plan. ``running`` says which jobs run."""

    def __init__(
        self, there: Deployment, plan: Sequence[Fault], running: Callable[[], list[str]]
    ) -> None:
        self.strikes: list[Strike] = []
        self.without_victim: list[Fault] = []
        self._there, self._running = there, running
        self._due = [*plan]
        self._began = time.monotonic()
        self._taken: dict[str, Strike] = {}
        """What a fault holds at present: hosts, members, disks."""

    def strike(self) -> list[Strike]:
        """Do what is due; and undo what is over."""
        now = time.monotonic()
        for name, one in [*self._taken.items()]:
            if one.until <= now:
                self._undo(name)
        struck: list[Strike] = []
        for fault in [*self._due]:
            late = now - self._began - fault.at
            if late < 0:
                break
            found = self._strike(fault)
            if found is not None:
                struck.append(found)
            elif late < _PATIENCE:
                continue
            else:
                self.without_victim.append(fault)
            self._due.remove(fault)
        self.strikes += struck
        return struck

    def close(self) -> None:
        """Undo all."""
        for name in [*self._taken]:
            self._undo(name)

    def _undo(self, name: str) -> None:
        one = self._taken.pop(name)
        if one.undo is not None:
            one.undo()
        one.until = time.monotonic()

    def _strike(self, fault: Fault) -> Strike | None:
        there, kind = self._there, fault.kind
        match kind:
            case Kind.KILL_RANK | Kind.FREEZE_RANK:
                return self._signal(fault, victims.ranks(self._running()))
            case Kind.KILL_AGENT | Kind.FREEZE_AGENT:
                return self._signal(fault, victims.agents(there))
            case Kind.KILL_GUARDIAN:
                return self._signal(fault, victims.guardians(there))
            case Kind.KILL_TASK:
                return self._signal(fault, victims.tasks(there))
            case Kind.KILL_SUPERVISOR:
                return self._signal(fault, victims.supervisors(there))
            case Kind.KILL_SCHEDULER | Kind.KILL_API_SERVER:
                name = "scheduler" if kind is Kind.KILL_SCHEDULER else "api-server"
                os.kill(there.pid(name), signal.SIGKILL)
                return self._begun(fault, name, None)
            case Kind.CUT_WORKER | Kind.SILENCE_WORKER | Kind.SLOW_WORKER:
                return self._disturb(fault, there.workers)
            case Kind.CUT_MEMBER | Kind.SLOW_MEMBER:
                hosts = [member.inside for member in there.members if member.inside]
                return self._disturb(fault, hosts)
            case Kind.FREEZE_MEMBER | Kind.KILL_LEADER:
                return self._stop_member(fault)
            case Kind.FILL_CHECKPOINTS:
                return self._fill(fault, {"checkpoints": there.checkpoints})
            case Kind.FILL_WORKER:
                return self._fill(fault, {f"disk of {h.name}": h.folder for h in there.workers})

    def _begun(
        self, fault: Fault, victim: str, undo: Callable[[], object] | None, *jobs: str
    ) -> Strike:
        now = time.monotonic()
        return Strike(
            fault=fault,
            victim=victim,
            jobs=jobs or tuple(self._running()),
            at=now,
            until=now + fault.seconds,
            undo=undo,
        )

    def _held(self, name: str, one: Strike) -> Strike:
        self._taken[name] = one
        return one

    def _signal(self, fault: Fault, there: Sequence[Victim]) -> Strike | None:
        free = [one for one in there if f"pid {one.pid}" not in self._taken]
        if not free:
            return None
        one = free[int(fault.pick * len(free))]
        jobs = (one.job,) if one.job else ()
        with suppress(ProcessLookupError):
            if fault.seconds == 0:
                os.kill(one.pid, signal.SIGKILL)
                return self._begun(fault, str(one), None, *jobs)
            # By its descriptor: the number may be another process's when it is let go.
            pidfd = os.pidfd_open(one.pid)
            os.kill(one.pid, signal.SIGSTOP)
            begun = self._begun(fault, str(one), lambda: _let_go(pidfd), *jobs)
            return self._held(f"pid {one.pid}", begun)
        return None

    def _disturb(self, fault: Fault, hosts: Sequence[Host]) -> Strike | None:
        free = [host for host in hosts if host.name not in self._taken]
        if not free:
            return None
        host = free[int(fault.pick * len(free))]
        net = self._there.network
        match fault.kind:
            case Kind.CUT_WORKER | Kind.CUT_MEMBER:
                net.cut(host)
            case Kind.SILENCE_WORKER:
                net.silence(host)
            case _:
                net.slow(host, _DELAY, _LOSS, fault.number)
        begun = self._begun(fault, host.name, lambda: net.mend(host))
        return self._held(host.name, begun)

    def _stop_member(self, fault: Fault) -> Strike | None:
        kills = fault.kind is Kind.KILL_LEADER
        free = [one for one in self._there.members if _name(one) not in self._taken]
        if kills:
            free = [one for one in free if _leads(one)]
        if not free:
            return None
        member = free[int(fault.pick * len(free))]
        if kills:
            member.kill()
        else:
            member.freeze()
        undo = member.launch if kills else member.thaw
        return self._held(_name(member), self._begun(fault, _name(member), undo))

    def _fill(self, fault: Fault, disks: dict[str, Path]) -> Strike | None:
        free = [name for name in disks if name not in self._taken]
        if not free:
            return None
        name = free[int(fault.pick * len(free))]
        ballast = disks[name] / "ballast"
        with suppress(OSError), ballast.open("wb", buffering=0) as file:
            while True:
                file.write(bytes(_CHUNK))
        return self._held(name, self._begun(fault, name, ballast.unlink))


def _name(member: Member) -> str:
    assert member.inside is not None
    return f"member {member.inside.name}"


def _leads(member: Member) -> bool:
    try:
        return member.is_leader()
    except Exception:  # grpc's: it is cut off, or has only begun
        return False


def _let_go(pidfd: int) -> None:
    with suppress(ProcessLookupError):
        signal.pidfd_send_signal(pidfd, signal.SIGCONT)
    os.close(pidfd)
