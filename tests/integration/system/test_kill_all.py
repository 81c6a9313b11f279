"""Finding and ending every process of a job, whatever they did to get away."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from llutil.system.job_mark import GUARDIAN_VARIABLE, MARK_VARIABLE
from llutil.system.kill_all import job_processes, kill_all, marked_processes
from llutil.system.process_table import (
    Moment,
    ProcessStat,
    all_processes,
    session_members,
    stat_of,
)
from tests.support.forks import fork
from tests.support.launches import is_alive, wait_until
from tests.support.privileges import ANOTHER_USER, forgo_signals_to_others

pytestmark = pytest.mark.launch

LIMIT = 30.0  # seconds, for what takes a moment on a machine that does nothing else
LIVES = "import time; time.sleep(60)"

# Each names its kind and its number on its standard output, and then sleeps.
TREE = """
import os, sys, time

def say(kind):
    os.write(1, f"{kind} {os.getpid()}\\n".encode())

def child(*then):
    if os.fork() == 0:
        for step in then:
            step()
        time.sleep(60)
        os._exit(0)

def orphan(*then):
    if os.fork() == 0:
        child(*then)
        os._exit(0)
    os.wait()

say("root")
child(lambda: say("child"))
child(os.setsid, lambda: say("child in a session of its own"))
child(os.setsid, lambda: child(os.setsid, lambda: say("grandchild in its own session")))
orphan(lambda: say("orphan in the root's session"))
if "escape" in sys.argv:
    orphan(os.setsid, lambda: say("orphan in a session of its own"))
time.sleep(60)
"""


@dataclass
class Tree:
    root: int
    pids: dict[str, int]
    session: dict[int, int]

    def alive(self) -> set[int]:
        return {pid for pid in self.pids.values() if is_alive(pid)}


def session_of(leader: int) -> dict[int, int]:
    stat = stat_of(leader)
    assert stat is not None
    return {leader: stat.start}


Planter = Callable[..., Tree]


@pytest.fixture
def mark() -> str:
    return uuid.uuid4().hex


@pytest.fixture
def plant(mark: str) -> Iterator[Planter]:
    """Grows a tree of processes that carry the mark, and fells it."""
    roots: list[subprocess.Popen[str]] = []

    def plant(*arguments: str, kinds: int) -> Tree:
        root = subprocess.Popen(
            [sys.executable, "-S", "-c", TREE, *arguments],
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
            env={**os.environ, MARK_VARIABLE: mark},
        )
        roots.append(root)
        assert root.stdout is not None
        said = [root.stdout.readline().rpartition(" ") for _ in range(kinds)]
        return Tree(root.pid, {kind: int(pid) for kind, _, pid in said}, session_of(root.pid))

    yield plant
    for root in roots:
        kill_all(session_of(root.pid), mark, time.monotonic() + LIMIT)
        assert root.stdout is not None
        root.stdout.close()
        root.wait(LIMIT)


def found(sessions: dict[int, int], mark: str) -> set[int]:
    table = all_processes()
    marked, _ = marked_processes(table.values(), mark)
    return job_processes(table, dict(sessions), marked, set())


def test_members_of_a_session_are_those_who_did_not_leave_it(plant: Planter) -> None:
    tree = plant(kinds=5)
    wanted = {tree.pids["root"], tree.pids["child"], tree.pids["orphan in the root's session"]}
    # An orphan's parent ends a moment after it spoke.
    assert wait_until(lambda: session_members({tree.root}) == wanted)


def test_all_that_descends_from_a_session_is_found_without_a_mark(plant: Planter) -> None:
    tree = plant(kinds=5)
    assert found(tree.session, "no mark") >= set(tree.pids.values())
    assert os.getpid() not in found(tree.session, "no mark")


def test_an_orphan_in_a_session_of_its_own_is_found_by_the_mark(plant: Planter, mark: str) -> None:
    tree = plant("escape", kinds=6)
    escaped = tree.pids["orphan in a session of its own"]
    # Its parent ends a moment after it spoke.
    assert wait_until(lambda: escaped not in found(tree.session, "no mark"))
    assert found({}, mark) >= set(tree.pids.values())


def test_nobody_without_the_exact_mark_is_found(plant: Planter, mark: str) -> None:
    plant(kinds=5)
    assert found({}, mark[:-1]) == set()
    assert found({}, uuid.uuid4().hex) == set()


@pytest.mark.fault
@pytest.mark.parametrize("since_a_moment", [False, True])
def test_ending_all_leaves_nobody_however_they_hid(
    since_a_moment: bool, plant: Planter, mark: str
) -> None:
    since = Moment() if since_a_moment else None
    tree = plant("escape", kinds=6)
    assert not kill_all(tree.session, mark, time.monotonic() + LIMIT, since=since)
    assert wait_until(lambda: not tree.alive())


@pytest.mark.fault
def test_descendants_are_ended_after_the_root_died(plant: Planter, mark: str) -> None:
    tree = plant("escape", kinds=6)
    os.kill(tree.root, signal.SIGKILL)
    assert wait_until(lambda: not is_alive(tree.root))
    assert not kill_all(tree.session, mark, time.monotonic() + LIMIT)
    assert not tree.alive()


@pytest.mark.fault
def test_a_process_that_was_forked_during_each_look_is_found(
    mark: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[subprocess.Popen[bytes]] = []

    def look_that_misses(stopped: dict[int, ProcessStat], only: object) -> dict[int, ProcessStat]:
        assert only is None
        if len(started) < 3:
            started.append(marked_process(mark))
            return {}
        return all_processes(stopped)

    monkeypatch.setattr("llutil.system.kill_all.all_processes", look_that_misses)
    try:
        assert not kill_all({}, mark, time.monotonic() + LIMIT)
        for process in started:
            assert process.wait(LIMIT) == -signal.SIGKILL
    finally:
        for process in started:
            process.kill()
            process.wait()


def marked_process(mark: str) -> subprocess.Popen[bytes]:
    """A process with the mark, which is there to be seen."""
    process = subprocess.Popen(
        ["sleep", "60"], start_new_session=True, env={**os.environ, MARK_VARIABLE: mark}
    )
    assert wait_until(lambda: process.pid in found({}, mark))
    return process


@pytest.mark.fault
def test_ending_keeps_up_with_processes_that_fork_all_the_time(mark: str) -> None:
    """Each child lives just long enough to have the next one, in a new session."""
    code = (
        "import os, time\n"
        "end = time.monotonic() + 60\n"  # or it would burn a core for ever if this test were killed
        "while time.monotonic() < end:\n"
        "    os.fork() and os._exit(0)\n"
        "    os.setsid()\n"
        "    time.sleep(0.005)\n"
    )
    root = subprocess.Popen(
        [sys.executable, "-S", "-c", code],
        start_new_session=True,
        env={**os.environ, MARK_VARIABLE: mark},
    )
    session = session_of(root.pid)
    try:
        root.wait(LIMIT)  # and its descendants go on
        assert not kill_all(session, mark, time.monotonic() + 30)
        assert found({}, mark) == set()
    finally:
        kill_all(session, mark, time.monotonic() + LIMIT)


@pytest.mark.fault
def test_two_hundred_processes_that_breed_are_stopped_and_killed(mark: str) -> None:
    """Each has a child as soon as it can; their parent, which leads the session, has ended."""
    code = (
        "import os, time\n"
        "end = time.monotonic() + 30\n"
        "read, write = os.pipe()\n"
        "for _ in range(200):\n"
        "    if os.fork() == 0:\n"
        "        os.close(write)\n"
        "        os.read(read, 1)\n"  # they begin when the last of them is there
        "        while time.monotonic() < end:\n"
        "            os.fork() and os._exit(0)\n"
    )
    root = subprocess.Popen([sys.executable, "-S", "-c", code], start_new_session=True)
    session = session_of(root.pid)
    try:
        os.waitid(os.P_PID, root.pid, os.WEXITED | os.WNOWAIT)
        assert not kill_all(session, mark, time.monotonic() + 30)
        assert session_members({root.pid}) == set()
    finally:
        kill_all(session, mark, time.monotonic() + LIMIT)
        root.wait()


@pytest.mark.fault
def test_a_process_that_may_not_be_signalled_is_named_and_the_rest_ends(mark: str) -> None:
    """One that has set another user, as ``su`` does, in the middle of the others."""
    code = (
        "import subprocess, sys\n"
        "sleep = ['sleep', '60']\n"
        f"users = [None, {ANOTHER_USER}, None]\n"
        "print(*(subprocess.Popen(sleep, user=user).pid for user in users), flush=True)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-S", "-c", code], stdout=subprocess.PIPE, start_new_session=True
    ) as root:
        assert root.stdout is not None
        first, refused, last = map(int, root.stdout.readline().split())
        session = session_of(root.pid)
        assert wait_until(lambda: Path(f"/proc/{refused}/cmdline").read_bytes() == b"sleep\x0060\0")
        told, said = os.pipe()
        if (killer := fork()) == 0:
            forgo_signals_to_others()
            began = time.monotonic()
            left = kill_all(session, mark, began + 30)
            os.write(
                said, f"{left.refused} {left.ours} {time.monotonic() - began < 20} {left}".encode()
            )
            os._exit(0)
        os.close(said)
        with os.fdopen(told) as reader:
            text = reader.read()
        os.waitpid(killer, 0)
        try:
            assert text == (
                f"[{refused}] [] True "
                f"process {refused} (sleep 60) may not be signalled by this user"
            )
            assert [is_alive(pid) for pid in (first, refused, last)] == [False, True, False]
        finally:
            os.kill(refused, signal.SIGKILL)


def test_the_jobs_guardian_is_spared(mark: str) -> None:
    guardian = subprocess.Popen(["sleep", "60"], env={GUARDIAN_VARIABLE: mark})
    worker = subprocess.Popen(["sleep", "60"], env={MARK_VARIABLE: mark})
    try:
        assert not kill_all({}, mark, time.monotonic() + LIMIT)
        assert worker.wait() == -signal.SIGKILL
        assert guardian.poll() is None
    finally:
        guardian.kill()
        guardian.wait()


def test_nothing_to_end_takes_no_time_and_harms_nobody(mark: str) -> None:
    bystander = subprocess.Popen([sys.executable, "-S", "-c", LIVES])
    try:
        assert not kill_all({}, mark, time.monotonic() + LIMIT)
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()
