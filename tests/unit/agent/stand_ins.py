"""Ranks without processes: what a group of ranks is given by its agent."""

from __future__ import annotations

import os
from collections.abc import Container
from typing import Any

from llutil.agent.event_loop import EventLoop
from llutil.agent.observer import TerminalObserver
from llutil.agent.output.log_files import Route
from llutil.agent.start_methods.starter import StartRequest
from llutil.agent.worker_side.outcome_pipe import Note, write_frame
from llutil.agent.workers.rank_group import RankGroup
from llutil.agent.workers.rank_plan import RankPlan
from llutil.system.send_signal import Sent

__all__ = ["Guardian", "Starter", "group_of"]

# Greater than the kernel's greatest number of a process (PID_MAX_LIMIT).
NO_PROCESS = 2**22 + 1


class Process:
    """A process that does not end by any signal, unless ``mortal``."""

    start = 1

    def __init__(self, pid: int, *, mortal: bool) -> None:
        self.pid = pid
        self.exit_fd, self._write = os.pipe()
        self.signals: list[int] = []
        self._mortal = mortal

    def poll(self) -> int | None:
        return -self.signals[0] if self._mortal and self.signals else None

    def send_signal(self, number: int, *, group: bool) -> Sent:
        del group
        self.signals.append(number)
        os.write(self._write, b"0")
        return Sent.DONE

    def close(self) -> None:
        os.close(self.exit_fd)
        os.close(self._write)


class Starter:
    """Starts ranks that report what ``notes`` says of them; those in ``mortal`` end by a signal."""

    processes: dict[int, int] = {}  # noqa: RUF012 - the starter has none
    ready: dict[int, int] = {}  # noqa: RUF012 - as above

    def __init__(self, notes: dict[int, Note], mortal: tuple[int, ...]) -> None:
        self._notes = notes
        self._mortal = mortal
        self.started: list[Process] = []
        self.prepared: list[int] = []

    def prepare(self, count: int) -> None:
        self.prepared.append(count)

    def start(self, request: StartRequest) -> Process:
        rank = len(self.started)
        if rank in self._notes:
            write_frame(request.outcome_fd, self._notes[rank])
        self.started.append(Process(NO_PROCESS + rank, mortal=rank in self._mortal))
        return self.started[-1]


class Guardian:
    """One that only keeps the sessions that it is told of."""

    since = None

    def __init__(self) -> None:
        self.sessions: set[int] = set()

    def watch(self, pid: int, _start: int) -> None:
        self.sessions.add(pid)

    def forget_all_but(self, sessions: Container[int]) -> None:
        self.sessions = {pid for pid in self.sessions if pid in sessions}


def group_of(
    ranks: int,
    starter: Starter,
    loop: EventLoop,
    *,
    prepare: bool = False,
    exit_timeout: float = 0.0,
    guardian: Guardian | None = None,
) -> RankGroup:
    stand_ins: dict[str, Any] = {"starter": starter, "guardian": guardian or Guardian()}
    return RankGroup(
        [_plan(rank, exit_timeout) for rank in range(ranks)],
        order_fd=-1,
        mark="",
        loop=loop,
        observer=TerminalObserver(),
        prepare=prepare,
        **stand_ins,
    )


def _plan(rank: int, exit_timeout: float) -> RankPlan:
    nowhere = Route(None, console=False)
    return RankPlan(
        rank=rank,
        local_rank=rank,
        prefix="",
        env={},
        stdin=None,
        stdout=nowhere,
        stderr=nowhere,
        returns=True,
        signal_session=False,
        exit_timeout=exit_timeout,
    )
