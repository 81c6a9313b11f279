"""Which processes of a machine belong to a job, as a table of processes shows it; and what becomes
of them.
"""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from llutil.system import kill_all as module
from llutil.system import process_table
from llutil.system.kill_all import Survivors, job_processes, kill_all
from llutil.system.process_table import (
    Moment,
    ProcessStat,
    newest_number,
    numbers_are_the_kernels,
    stat_of,
)
from llutil.system.send_signal import Sent

INIT, SHELL, AGENT, STARTER, RANK = 1, 50, 100, 110, 120
START = 7000


def process(pid: int, parent: int, session: int, start: int = START, **more: str) -> ProcessStat:
    return ProcessStat(pid, parent=parent, group=session, session=session, start=start, **more)


def found(
    *more: ProcessStat,
    sessions: dict[int, int] | None = None,
    marked: set[int] | None = None,
    guardians: set[int] | None = None,
) -> set[int]:
    """What is found beside an agent in a shell's session, a process that starts ranks, and a rank
    that has ended and is not reaped.
    """
    table = {
        stat.pid: stat
        for stat in (
            process(INIT, 0, INIT, 1),
            process(SHELL, INIT, SHELL, 2),
            process(AGENT, SHELL, SHELL, 3),
            process(STARTER, AGENT, STARTER),
            process(RANK, STARTER, RANK, state="Z"),
            *more,
        )
    }
    known = {RANK: START} if sessions is None else sessions
    return job_processes(table, known, marked or set(), guardians or set()) - {STARTER, RANK}


def test_the_members_of_a_ranks_session_are_the_jobs() -> None:
    assert found(process(130, STARTER, RANK), process(131, SHELL, SHELL)) == {130}


def test_what_descends_from_a_member_is_the_jobs_in_whatever_session() -> None:
    child, grandchild = process(130, RANK, 130), process(131, 130, 131)
    orphan_in_the_childs_session = process(132, INIT, 130)
    assert found(child, grandchild, orphan_in_the_childs_session) == {130, 131, 132}


def test_an_orphan_with_no_mark_in_a_session_of_its_own_is_found_below_the_starter() -> None:
    """``setsid env -i``: nothing is left of the job but who adopted it."""
    assert found(process(130, STARTER, 130), marked={STARTER}) == {130}


def test_a_marked_process_makes_no_session_the_jobs_that_another_leads() -> None:
    """An agent that was started in a shell carries the mark, and the shell does not."""
    assert found(process(130, INIT, SHELL), marked={AGENT}) == {AGENT}


def test_the_guardian_is_not_found_though_the_agent_above_it_is_marked() -> None:
    guardian, below = process(130, AGENT, 130), process(131, 130, 131)
    assert found(guardian, below, marked={AGENT}, guardians={130}) == {AGENT}


def test_a_session_whose_number_has_become_another_processs_is_not_the_jobs() -> None:
    stranger, strangers_child = process(200, INIT, 200, START + 1), process(201, 200, 200)
    assert found(stranger, strangers_child, sessions={200: START}) == set()
    assert found(process(200, INIT, 200), strangers_child, sessions={200: START}) == {200, 201}


def test_a_session_that_has_lost_its_leader_keeps_its_number() -> None:
    assert found(process(201, INIT, 200), sessions={200: START}) == {201}


def test_a_session_that_was_found_is_known_at_the_next_look() -> None:
    sessions = {RANK: START}
    found(process(130, RANK, 130), sessions=sessions)
    assert found(process(131, INIT, 130), sessions=sessions) == {131}


def test_a_zombie_lives_while_threads_of_it_do() -> None:
    zombie = ProcessStat(130, parent=1, group=130, session=130, state="Z", threads=1)
    leader = ProcessStat(130, parent=1, group=130, session=130, state="Z", threads=2)
    assert (zombie.lives, leader.lives) == (False, True)


def test_stuck_in_the_kernel_is_said_of_uninterruptible_sleep_alone() -> None:
    nobody = 1 << 22  # so its command is unknown
    texts = {}
    for state in "DRST":
        left = Survivors()
        left.add(process(nobody, 1, nobody, state=state), refused=False)
        texts[state] = str(left)
        assert (left.stuck == [nobody], left.ours) == (state == "D", [nobody])
    assert [state for state, text in texts.items() if "stuck" in text] == ["D"]
    refused = Survivors()
    refused.add(process(nobody, 1, nobody, state="D"), refused=True)
    assert "may not be signalled" in str(refused)
    assert "stuck" not in str(refused)
    assert (refused.refused, refused.ours) == ([nobody], [])


LIMIT = 20.0  # seconds; a test that waits so long has failed


@pytest.fixture
def leader() -> Iterator[subprocess.Popen[bytes]]:
    """A process that leads a session, and ends by a signal only."""
    with subprocess.Popen(["sleep", "60"], start_new_session=True) as leader:
        yield leader
        leader.kill()


def session_of(leader: subprocess.Popen[bytes]) -> dict[int, int]:
    stat = stat_of(leader.pid)
    assert stat is not None
    return {leader.pid: stat.start}


def before_each_look(monkeypatch: pytest.MonkeyPatch, act: Callable[[int], object]) -> None:
    """Call ``act`` with the number of the look, from 1 on, before each look at /proc."""
    listdir, looks = os.listdir, iter(range(1, 1000))

    def look(path: str) -> list[str]:
        act(next(looks))
        return listdir(path)

    monkeypatch.setattr(os, "listdir", look)


def test_a_process_that_is_gone_after_it_was_stopped_is_no_error(
    leader: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody else killed it."""

    def end_it(look: int) -> None:
        if look == 2:
            leader.kill()
            leader.wait()

    sessions = session_of(leader)
    before_each_look(monkeypatch, end_it)
    assert not kill_all(sessions, "", time.monotonic() + LIMIT)


def test_what_was_sent_sigkill_is_not_stopped_again(
    leader: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It takes a while to die: here until the fourth look."""
    sent: list[int] = []
    send = signal.pidfd_send_signal

    def send_later(pidfd: int, number: int, *more: object) -> None:
        sent.append(number)
        if number != signal.SIGKILL:
            send(pidfd, number, *more)  # type: ignore[arg-type]

    sessions = session_of(leader)
    monkeypatch.setattr(signal, "pidfd_send_signal", send_later)
    before_each_look(monkeypatch, lambda look: leader.kill() if look == 4 else None)
    assert not kill_all(sessions, "", time.monotonic() + LIMIT)
    assert signal.SIGSTOP in sent
    assert signal.SIGSTOP not in sent[sent.index(signal.SIGKILL) :]


def test_at_its_deadline_it_leaves_nobody_stopped_and_alive(
    leader: subprocess.Popen[bytes],
) -> None:
    kill_all(session_of(leader), "", time.monotonic() - 1)
    assert leader.wait(LIMIT) == -signal.SIGKILL


def test_what_ends_at_the_deadline_is_no_survivor(
    leader: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    sessions = session_of(leader)
    send = signal.pidfd_send_signal

    def send_and_wait(pidfd: int, number: int, *more: object) -> None:
        send(pidfd, number, *more)  # type: ignore[arg-type]
        if number == signal.SIGKILL:
            os.waitid(os.P_PID, leader.pid, os.WEXITED | os.WNOWAIT)

    monkeypatch.setattr(signal, "pidfd_send_signal", send_and_wait)
    assert not kill_all(sessions, "", time.monotonic() - 1)


@pytest.mark.parametrize(
    ("numbers", "kernels", "looks"),
    [((5, 5), True, 1), ((5, 5), False, 3), ((5, 6), True, 3)],
    ids=["nothing was forked", "who counts is not the kernel", "something was forked"],
)
def test_one_empty_look_is_enough_if_nothing_was_forked_meanwhile(
    numbers: tuple[int, int], kernels: bool, looks: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = itertools.cycle(numbers)
    monkeypatch.setattr(module, "newest_number", lambda: next(given))
    monkeypatch.setattr(module, "numbers_are_the_kernels", lambda: kernels)
    monkeypatch.setattr(module, "_some_are_new", lambda *_: False)
    done: list[int] = []
    before_each_look(monkeypatch, done.append)
    assert not kill_all({}, "", time.monotonic() + LIMIT)
    assert len(done) == looks


def test_the_kernel_counts_the_processes_of_this_machine() -> None:
    before = newest_number()
    subprocess.run(["true"], check=True)
    assert (newest_number() != before) == numbers_are_the_kernels()


def test_of_older_processes_only_those_that_are_known_are_looked_at(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    looked_at: list[Any] = []

    def look(_unchanged: object, only: Any) -> dict[int, ProcessStat]:
        looked_at.append(only)
        return {}

    monkeypatch.setattr(module, "all_processes", look)
    monkeypatch.setattr(module, "numbers_are_the_kernels", lambda: True)
    known = os.getppid()
    moment = Moment()
    with subprocess.Popen(["true"]) as newer:
        pass
    # The kernel's numbers may begin from the lowest again at any moment, and are not looked at.
    monkeypatch.setattr(Moment, "newer", lambda _: range(newer.pid, newer.pid + 1))
    assert not kill_all({known: 1}, "", time.monotonic() + LIMIT, since=moment)
    assert {newer.pid, known, os.getpid()} <= looked_at[0]
    assert INIT not in looked_at[0]
    looked_at.clear()
    monkeypatch.setattr(module, "numbers_are_the_kernels", lambda: False)
    kill_all({known: 1}, "", time.monotonic() + LIMIT, since=moment)
    assert looked_at[0] is None


@pytest.mark.parametrize(
    ("before", "after", "newer"),
    [
        ((70, 900), (72, 905), range(901, 906)),
        ((70, 900), (70, 900), range(901, 901)),
        ((70, 900), (80, 310), None),
        ((70, 900), (2000, 905), None),
        ((0, 900), (0, 905), None),
    ],
    ids=["some", "none", "from the lowest again", "perhaps all the way round", "nobody counts"],
)
def test_who_is_newer_than_a_moment_is_known_by_the_numbers_since(
    before: tuple[int, int],
    after: tuple[int, int],
    newer: range | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def told(forks: int, newest: int) -> None:
        monkeypatch.setattr(process_table, "_forks", lambda: forks)
        monkeypatch.setattr(process_table, "newest_number", lambda: newest)

    told(*before)
    moment = Moment()
    told(*after)
    assert moment.newer() == newer


def test_the_kernel_counts_forks() -> None:
    before = process_table._forks()
    subprocess.run(["true"], check=True)
    assert process_table._forks() > before > 0


def test_the_last_look_is_a_moment_for_the_next_one(monkeypatch: pytest.MonkeyPatch) -> None:
    assert kill_all({}, "", time.monotonic() + LIMIT).since is not None
    left = process(os.getppid(), INIT, os.getppid())
    monkeypatch.setattr(module, "all_processes", lambda *_: {left.pid: left})
    monkeypatch.setattr(module, "send_signal", lambda *_, **__: Sent.REFUSED)
    assert kill_all({left.pid: START}, "", time.monotonic() + LIMIT).since is None
