"""Ends every process of a job, wherever it hides, and says which ones it could not end.

A worker may start children, put them in sessions of their own, and end before they do. These facts
find them all the same. A process has its parent's number while the parent lives. It inherits its
session unless it leaves it. And it inherits the environment, with the job's mark, unless it is
started with another one. A process that did all three is an orphan, and the kernel gives it to the
next subreaper above it (prctl(2), PR_SET_CHILD_SUBREAPER): that is the process which starts the
workers, a rank server, whose session is among those to end.

All that is found is stopped (SIGSTOP), until a look finds nobody new. Then it is killed. So a
process that forks all the time is ended too, and a killed parent loses no child that was not seen.

This module may import only the standard library and modules of ``llutil.system``. It signals
nobody that it did not find by one of these facts.
"""

from __future__ import annotations

import os
import signal
import time

from llutil.system.job_mark import GUARDIAN_VARIABLE, MARK_VARIABLE
from llutil.system.process_table import (
    EXEC_LONGEST,
    Moment,
    ProcessStat,
    all_processes,
    command_of,
    environment_has,
    newest_number,
    numbers_are_the_kernels,
    stat_of,
)
from llutil.system.send_signal import Sent, send_signal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = ["Survivors", "job_processes", "kill_all", "marked_processes"]

# Looks at /proc in a row that must find nothing. /proc is read a piece at a time, so one look can
# miss a process that is forked meanwhile, and whose parent ends before it is read. One look is
# enough if the kernel has given no number meanwhile: then nothing was forked.
_EMPTY_LOOKS = 3
# How many of the numbers that were given during a look are looked at one by one, at most.
_MOST_NEW = 1000
# Looks in a row that find a new process to stop, before those that are stopped are killed all the
# same: there may be more than can be stopped.
_MOST_STOPS = 20
# Seconds between two looks at /proc while killed processes end.
_LOOK_PERIOD = 0.01
# The state of a process that no signal ends before what it waits for has happened (proc(5)).
_UNINTERRUPTIBLE = "D"


class Survivors:
    """The processes that ``kill_all`` could not end; false if there are none.

    ``refused`` are the numbers of those which may not be signalled: they run a program that has set
    another user. ``stuck`` and ``running`` are those that had not ended at the deadline. ``since``
    is for the next call, if there are none.
    """

    __slots__ = ("_texts", "refused", "running", "since", "stuck")

    def __init__(self, since: Moment | None = None) -> None:
        self.since = since
        self.refused: list[int] = []
        self.stuck: list[int] = []
        self.running: list[int] = []
        self._texts: list[str] = []

    def __bool__(self) -> bool:
        return bool(self._texts)

    @property
    def ours(self) -> list[int]:
        """Those that may be ranks: all but the refused."""
        return self.stuck + self.running

    def add(self, stat: ProcessStat, *, refused: bool) -> None:
        """One that is left."""
        if refused:
            self.refused.append(stat.pid)
            why = "may not be signalled by this user"
        elif stat.state == _UNINTERRUPTIBLE:
            self.stuck.append(stat.pid)
            why = "is stuck in the kernel, in an uninterruptible sleep"
        else:
            self.running.append(stat.pid)
            why = f"has been sent SIGKILL and is still there, in state {stat.state}"
        self._texts.append(f"process {stat.pid} ({command_of(stat.pid)}) {why}")

    def __str__(self) -> str:
        """One line: each process, its command, and why it is left."""
        return "; ".join(self._texts)


def kill_all(
    sessions: Mapping[int, int],
    mark: str,
    deadline: float,
    spare: Iterable[int] = (),
    since: Moment | None = None,
) -> Survivors:
    """Kill the members of ``sessions``, all that carry ``mark``, and all that descends from both.

    ``sessions`` maps the number of each session to the start of the process that leads it, in
    ticks. Waits until all are gone, but not after ``deadline`` (seconds on ``time.monotonic()``);
    by then all were sent SIGKILL. It does not wait for a process that may not be signalled. An
    empty mark is nobody's. This process, those in ``spare``, and the job's guardian are not killed.

    ``since`` is a moment when there was nobody of the job but these sessions' leaders and those in
    ``spare``. All others are newer, and older processes of the machine are not looked at: there may
    be thousands.
    """
    known = dict(sessions)
    spared = {os.getpid(), *spare}
    stopped: dict[int, ProcessStat] = {}
    killed: set[tuple[int, int]] = set()
    refused: set[tuple[int, int]] = set()
    empty = stops = 0
    # The most likely place of many processes, before a look at /proc, which may take long then.
    for leader, start in known.items():
        if leader not in spared:
            send_signal(leader, start, signal.SIGSTOP, group=True)
    while True:
        moment, newest = Moment(), newest_number()
        table = all_processes(stopped, _candidates(since, known, spared))
        stopped = {pid: stat for pid, stat in stopped.items() if pid in table}
        # The kernel shows no environment of a process that is dying.
        dying = {pid for pid, stat in table.items() if stat.key in killed}
        others = [stat for stat in table.values() if stat.pid not in stopped]
        marked, guardians = marked_processes(others, mark)
        found = job_processes(table, known, marked | stopped.keys() | dying, guardians) - spared
        living = [table[pid] for pid in found if table[pid].lives]
        left = [stat for stat in living if stat.key not in refused]
        if not left and newest == newest_number() and numbers_are_the_kernels():
            return _survivors(living, refused, moment)
        empty = 0 if left or _some_are_new(newest, mark, known) else empty + 1
        if empty == _EMPTY_LOOKS:
            return _survivors(living, refused, moment)
        if time.monotonic() > deadline:
            _kill(left, killed, refused)
            time.sleep(_LOOK_PERIOD)
            return _survivors(_still_living(living), refused)
        new = [stat for stat in left if stat.pid not in stopped and stat.key not in killed]
        if new and stops < _MOST_STOPS:
            _stop(new, table, known, spared)
            stopped |= {stat.pid: stat for stat in new}
            stops += 1
        elif left:
            _kill(left, killed, refused)
            stopped.clear()
            stops = 0
            time.sleep(_LOOK_PERIOD)


def _candidates(
    since: Moment | None, known: Iterable[int], spared: Iterable[int]
) -> set[int] | None:
    """The numbers that processes of the job can have; None if they can have any."""
    newer = since.newer() if since is not None and numbers_are_the_kernels() else None
    return None if newer is None else {*newer, *known, *spared}


def job_processes(
    table: dict[int, ProcessStat], known: dict[int, int], marked: set[int], guardians: set[int]
) -> set[int]:
    """The processes of ``table`` that belong to a job, zombies too.

    They are the members of the sessions in ``known``, those in ``marked``, and all that descends
    from both. ``known`` maps the number of a session to the start of its leader; the sessions that
    are found are added to it. A number that has become another process's names no session of the
    job. Neither a process in ``guardians`` nor what descends from it is found.
    """
    children: dict[int, list[ProcessStat]] = {}
    members: dict[int, list[ProcessStat]] = {}
    for stat in table.values():
        children.setdefault(stat.parent, []).append(stat)
        members.setdefault(stat.session, []).append(stat)
    queue = [table[pid] for pid in marked]
    for session, start in known.items():
        leader = table.get(session)
        if leader is None or leader.start == start:
            queue += members.get(session, ())
    found: set[int] = set()
    while queue:
        stat = queue.pop()
        if stat.pid in found or stat.pid in guardians:
            continue
        found.add(stat.pid)
        queue += children.get(stat.pid, ())
        if stat.session == stat.pid:
            known[stat.pid] = stat.start
            queue += members[stat.pid]
    return found


def marked_processes(stats: Iterable[ProcessStat], mark: str) -> tuple[set[int], set[int]]:
    """The living processes among ``stats`` that carry the job's mark, and the job's guardians."""
    if not mark:
        return set(), set()
    carries = f"{MARK_VARIABLE}={mark}".encode()
    guards = f"{GUARDIAN_VARIABLE}={mark}".encode()
    until = time.monotonic() + EXEC_LONGEST  # of all together: many may be stuck in the same place
    marked: set[int] = set()
    guardians: set[int] = set()
    for stat in stats:
        shown = stat.lives and stat.has_memory
        variable = environment_has(stat.pid, (guards, carries), until=until) if shown else None
        if variable == guards:
            guardians.add(stat.pid)
        elif variable == carries and _is_still(stat):
            marked.add(stat.pid)
    return marked, guardians


def _some_are_new(before: int, mark: str, known: Mapping[int, int]) -> bool:
    """Whether a process of the job was forked since ``before`` was the newest number."""
    for _ in range(_MOST_STOPS):
        newest = newest_number()
        if newest <= before:
            break
        numbers = range(max(before + 1, newest - _MOST_NEW), newest + 1)
        stats = [stat for stat in map(stat_of, numbers) if stat is not None and stat.lives]
        if marked_processes(stats, mark)[0] or any(_is_member(stat, known) for stat in stats):
            return True
        before = newest
    return False


def _is_member(stat: ProcessStat, known: Mapping[int, int]) -> bool:
    """Whether it is in one of the sessions ``known``, whose number is still that session's."""
    if stat.session not in known:
        return False
    leader = stat_of(stat.session)
    return leader is None or leader.start == known[stat.session]


def _is_still(stat: ProcessStat) -> bool:
    """Whether the number has been the same process's since ``stat`` was read."""
    now = stat_of(stat.pid)
    return now is not None and now.start == stat.start


def _stop(
    new: list[ProcessStat], table: dict[int, ProcessStat], known: dict[int, int], spared: set[int]
) -> None:
    """Have the processes in ``new`` run no further: whole process groups first, at one stroke.

    A group lies within a session. So only groups in sessions of the job are stopped as such, and in
    no session that holds a process to be spared. Who may not be stopped is noticed when it is
    killed.
    """
    whole = known.keys() - {table[pid].session for pid in spared if pid in table}
    leaders = {stat.group: table.get(stat.group) for stat in new if stat.session in whole}
    for leader in leaders.values():
        if leader is not None:
            send_signal(*leader.key, signal.SIGSTOP, group=True)
    for stat in new:
        send_signal(*stat.key, signal.SIGSTOP)


def _kill(
    stats: list[ProcessStat], killed: set[tuple[int, int]], refused: set[tuple[int, int]]
) -> None:
    """Send SIGKILL. ``refused`` are those that may not be signalled, ``killed`` the others."""
    for stat in stats:
        sent = send_signal(*stat.key, signal.SIGKILL)
        (refused if sent is Sent.REFUSED else killed).add(stat.key)


def _still_living(stats: list[ProcessStat]) -> list[ProcessStat]:
    """Those of ``stats`` that live, as they are now."""
    now = [(stat, stat_of(stat.pid)) for stat in stats]
    return [new for old, new in now if new is not None and new.key == old.key and new.lives]


def _survivors(
    living: list[ProcessStat], refused: set[tuple[int, int]], moment: Moment | None = None
) -> Survivors:
    left = Survivors(None if living else moment)
    for stat in living:
        left.add(stat, refused=stat.key in refused)
    return left
