"""What a group of ranks says of one that the kernel does not end."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from llutil.agent.event_loop import EventLoop
from llutil.agent.failures.describe import node_failure
from llutil.agent.observer import TerminalObserver
from llutil.agent.output.log_files import Route
from llutil.agent.start_methods.starter import StartRequest
from llutil.agent.worker_side.outcome_pipe import (
    RANK_DID_NOT_END,
    ErrorNote,
    Note,
    Returned,
    write_frame,
)
from llutil.agent.workers import rank_group
from llutil.agent.workers.rank import RankPlan
from llutil.agent.workers.rank_group import RankGroup
from llutil.system.send_signal import Sent

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

    def __init__(self, notes: dict[int, Note], mortal: tuple[int, ...]) -> None:
        self._notes = notes
        self._mortal = mortal
        self.started: list[Process] = []

    def start(self, request: StartRequest) -> Process:
        rank = len(self.started)
        if rank in self._notes:
            write_frame(request.outcome_fd, self._notes[rank])
        self.started.append(Process(NO_PROCESS + rank, mortal=rank in self._mortal))
        return self.started[-1]


class Guardian:
    """One that does nothing."""

    def watch(self, _pid: int, _start: int) -> None:
        pass

    def forget(self, _pid: int) -> None:
        pass


Start = Callable[..., tuple[RankGroup, Starter]]


@pytest.fixture
def loop() -> Iterator[EventLoop]:
    with EventLoop() as loop:
        yield loop


@pytest.fixture
def start(loop: EventLoop, monkeypatch: pytest.MonkeyPatch) -> Start:
    monkeypatch.setattr(rank_group, "KILLED", 0.0)
    monkeypatch.setattr(rank_group, "_EXIT_TIME", 0.0)

    def start(
        ranks: int, notes: dict[int, Note] | None = None, mortal: tuple[int, ...] = ()
    ) -> tuple[RankGroup, Starter]:
        starter = Starter(notes or {}, mortal)
        plans = [_plan(rank) for rank in range(ranks)]
        stand_ins: dict[str, Any] = {"starter": starter, "guardian": Guardian()}
        group = RankGroup(
            plans, order_fd=-1, mark="", loop=loop, observer=TerminalObserver(), **stand_ins
        )
        return group, starter

    return start


def _plan(rank: int) -> RankPlan:
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
        exit_timeout=0.0,
    )


def test_a_rank_that_cannot_be_killed_counts_as_killed(start: Start) -> None:
    group, _ = start(1)
    group.stop(signal.SIGTERM, 0.0)
    (ended,) = group.results()
    assert (ended.status, ended.failed, ended.only_stopped) == (-signal.SIGKILL, True, True)
    assert node_failure([ended], None).failure is not None


def test_the_failure_of_a_rank_that_cannot_be_killed_is_the_nodes(start: Start) -> None:
    note = ErrorNote(kind="ValueError", text="no such data", fatal=True, at=1.0)
    group, _ = start(2, {0: note}, mortal=(1,))
    group.stop(signal.SIGTERM, 0.0)
    found = node_failure(group.results(), None)
    assert found.failure is not None
    assert (found.failure.rank, found.failure.reason) == (0, "ValueError: no such data")
    assert found.fatal


def test_the_value_of_a_rank_that_cannot_be_killed_counts(start: Start) -> None:
    group, _ = start(1, {0: Returned(b"7", pickled=False)})
    group.stop(signal.SIGTERM, 0.0)
    (ended,) = group.results()
    assert not ended.failed
    assert ended.note == Returned(b"7", pickled=False)


def test_a_rank_that_does_not_end_in_time_has_failed_before_the_kernel_has_ended_it(
    start: Start, loop: EventLoop
) -> None:
    group, starter = start(1, {0: Returned(b"7", pickled=False)})
    loop.turn(0.0)
    assert not group.failed
    group.kill_overdue()
    assert (group.failed, group.ended) == (True, False)
    group.refresh()
    loop.turn(0.0)
    group.kill_overdue()
    assert starter.started[0].signals == [signal.SIGKILL]
    assert group.next_deadline == float("inf")
    group.stop(signal.SIGTERM, 0.0)
    (ended,) = group.results()
    assert isinstance(ended.note, ErrorNote)
    assert (ended.note.kind, ended.failed) == (RANK_DID_NOT_END, True)
