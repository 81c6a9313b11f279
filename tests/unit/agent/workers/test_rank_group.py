"""What a group of ranks says of one that the kernel does not end."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator

import pytest

from llutil.agent.event_loop import EventLoop
from llutil.agent.failures.describe import node_failure
from llutil.agent.worker_side.outcome_pipe import (
    RANK_DID_NOT_END,
    ErrorNote,
    Note,
    Returned,
)
from llutil.agent.workers import rank_group
from llutil.agent.workers.rank_group import RankGroup
from tests.unit.agent.stand_ins import NO_PROCESS, Guardian, Starter, group_of

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
        return group_of(ranks, starter, loop), starter

    return start


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


def kill_overdue(group: RankGroup) -> None:
    for worker in group.overdue:
        worker.kill_overdue()


def test_a_rank_that_does_not_end_in_time_has_failed_before_the_kernel_has_ended_it(
    start: Start, loop: EventLoop
) -> None:
    group, starter = start(1, {0: Returned(b"7", pickled=False)})
    loop.turn(0.0)
    assert not group.failed
    kill_overdue(group)
    assert (group.failed, group.ended) == (True, False)
    group.refresh()
    loop.turn(0.0)
    kill_overdue(group)
    assert starter.started[0].signals == [signal.SIGKILL]
    assert group.next_deadline == float("inf")
    group.stop(signal.SIGTERM, 0.0)
    (ended,) = group.results()
    assert isinstance(ended.note, ErrorNote)
    assert (ended.note.kind, ended.failed) == (RANK_DID_NOT_END, True)


def test_the_next_rounds_ranks_get_ready_while_this_one_runs(
    loop: EventLoop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rank_group, "_PREPARE_AFTER", 0.0)
    starter = Starter({}, (0, 1))
    group = group_of(2, starter, loop, prepare=True)
    loop.turn(0.0)
    assert starter.prepared == [2]
    group.stop(signal.SIGTERM, 0.0)
    assert starter.prepared == [2]


def test_no_ranks_get_ready_once_a_round_is_ending(
    loop: EventLoop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rank_group, "_PREPARE_AFTER", 0.0)
    starter = Starter({}, (0,))
    group_of(1, starter, loop, prepare=True).stop(signal.SIGTERM, 0.0)
    loop.turn(0.0)
    assert starter.prepared == []


def test_the_guardian_keeps_of_a_round_only_the_processes_that_start_ranks_and_still_run(
    loop: EventLoop,
) -> None:
    """The number of another may be given to a stranger, whose session would be killed."""
    guardian, starter = Guardian(), Starter({}, (0,))
    died, replaced, rank = NO_PROCESS + 7, NO_PROCESS + 8, NO_PROCESS
    starter.processes = {died: 1}
    group = group_of(1, starter, loop, guardian=guardian)
    assert guardian.sessions == {died, rank}
    starter.processes = {replaced: 1}
    group.stop(signal.SIGTERM, 0.0)
    assert guardian.sessions == set()
    guardian.watch(replaced, 1)
    group_of(1, starter, loop, guardian=guardian).stop(signal.SIGTERM, 0.0)
    assert guardian.sessions == {replaced}
