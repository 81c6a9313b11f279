"""Finding and ending every process of a job, whatever they did to get away."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from llutil.system.processes import (
    MARK_VARIABLE,
    kill_all,
    processes_with_mark,
    session_members,
    session_trees,
)

pytestmark = pytest.mark.launch

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

    def alive(self) -> set[int]:
        return {pid for pid in self.pids.values() if is_alive(pid)}


def is_alive(pid: int) -> bool:
    with suppress(OSError):
        stat = Path(f"/proc/{pid}/stat").read_text()
        return stat.rpartition(")")[2].split()[0] not in "ZX"
    return False


def wait_until(condition: Callable[[], bool], seconds: float = 5.0) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


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
        return Tree(root.pid, {kind: int(pid) for kind, _, pid in said})

    yield plant
    for root in roots:
        kill_all([root.pid], mark, time.monotonic() + 5)
        assert root.stdout is not None
        root.stdout.close()
        root.wait(5)


def test_a_family_is_a_session_with_all_descendants_in_whatever_session(plant: Planter) -> None:
    tree = plant(kinds=5)
    members, sessions = session_trees([tree.root])
    assert members >= set(tree.pids.values())
    assert sessions >= {
        tree.root,
        tree.pids["child in a session of its own"],
        tree.pids["grandchild in its own session"],
    }
    assert os.getpid() not in members


def test_members_of_a_session_are_those_who_did_not_leave_it(plant: Planter) -> None:
    tree = plant(kinds=5)
    assert session_members([tree.root]) == {
        tree.pids["root"],
        tree.pids["child"],
        tree.pids["orphan in the root's session"],
    }


def test_an_orphan_in_a_session_of_its_own_is_found_by_the_mark(plant: Planter, mark: str) -> None:
    tree = plant("escape", kinds=6)
    escaped = tree.pids["orphan in a session of its own"]
    # Its parent ends a moment after it spoke.
    assert wait_until(lambda: escaped not in session_trees([tree.root])[0])
    assert escaped in processes_with_mark(mark)
    assert processes_with_mark(mark) >= set(tree.pids.values())


def test_nobody_without_the_exact_mark_is_found(plant: Planter, mark: str) -> None:
    plant(kinds=5)
    assert processes_with_mark(mark[:-1]) == set()
    assert processes_with_mark(uuid.uuid4().hex) == set()


@pytest.mark.fault
def test_ending_all_leaves_nobody_however_they_hid(plant: Planter, mark: str) -> None:
    tree = plant("escape", kinds=6)
    assert kill_all([tree.root], mark, time.monotonic() + 5) == set()
    assert wait_until(lambda: not tree.alive())


@pytest.mark.fault
def test_descendants_are_ended_after_the_root_died(plant: Planter, mark: str) -> None:
    tree = plant("escape", kinds=6)
    os.kill(tree.root, signal.SIGKILL)
    assert wait_until(lambda: not is_alive(tree.root))
    assert kill_all([tree.root], mark, time.monotonic() + 5) == set()
    assert not tree.alive()


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
    try:
        root.wait(10)  # and its descendants go on
        assert kill_all([root.pid], mark, time.monotonic() + 30) == set()
        assert processes_with_mark(mark) == set()
    finally:
        kill_all([root.pid], mark, time.monotonic() + 10)


def test_nothing_to_end_takes_no_time_and_harms_nobody(mark: str) -> None:
    bystander = subprocess.Popen([sys.executable, "-S", "-c", LIVES])
    try:
        assert kill_all([], mark, time.monotonic() + 5) == set()
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()


@pytest.mark.fault
def test_who_dies_with_its_parent_is_killed_when_the_parent_is() -> None:
    code = (
        "import os, sys, time\n"
        "from llutil.system.processes import die_with_parent\n"
        "parent = os.getpid()\n"
        "if os.fork() == 0:\n"
        "    die_with_parent(parent)\n"
        "    os.write(1, str(os.getpid()).encode() + b'\\n')\n"
        "time.sleep(60)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    with parent.stdout:
        child = int(parent.stdout.readline())
        parent.kill()
        parent.wait()
        assert wait_until(lambda: not is_alive(child))


@pytest.mark.fault
def test_who_finds_its_parent_gone_already_ends_at_once() -> None:
    code = (
        "from llutil.system.processes import die_with_parent\n"
        "die_with_parent(1 << 22)\n"
        "print('still here')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert (done.returncode, done.stdout) == (-signal.SIGKILL, b"")
