"""Fifty kills: whoever is killed with SIGKILL, at whatever moment, leaves no process behind.

Callers in library mode, agent processes, guardians, fork servers and workers are killed in turn,
some jobs at a time. Each worker has a child, one in a session of its own, and an orphan in another
session, and ignores every stop. Soon after a job's end, or after a restart is complete, nothing of
what was before may be left. ``LLUTIL_TEST_KILLS`` is how many of the jobs there are.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from tests.support import worker_functions
from tests.support.fake_task import FakeTask, spec, worker_function
from tests.support.forks import fork
from tests.support.launches import is_alive, launch, wait_until

pytestmark = [pytest.mark.launch, pytest.mark.fault]

SECONDS = 20.0
"""What is killed must be gone within so many seconds: two on an idle machine, and more on one that
does much else. A child that is overlooked lives for 60 s.
"""

_SOON = 60.0  # seconds for a job to start, or start again, on a loaded machine
_JOB = "LLUTIL_TEST_JOB"
_AT_A_TIME = 4
_JOBS = max(int(os.environ.get("LLUTIL_TEST_KILLS", "0")), 12)
_AGENTS = 2 * _AT_A_TIME
_COMMANDS = {
    "guardian": b"llutil.agent.guardian.main",
    "fork server": b"llutil.agent.start_methods.forkserver_main",
}


@pytest.fixture
def moments() -> random.Random:
    seed = random.SystemRandom().getrandbits(32)
    print("seed:", seed)
    return random.Random(seed)


class Job:
    """A job of two ranks with hidden children, in a caller forked from this process, which has
    torch imported.
    """

    def __init__(self, folder: Path, number: int) -> None:
        self.folder = folder / str(number)
        self.folder.mkdir()
        self._before = {*_processes()}
        self.caller = fork()
        if self.caller == 0:
            try:
                os.environ[_JOB] = self.folder.name
                launch(
                    worker_functions.haunt,
                    str(self.folder),
                    nproc=2,
                    start_method="forkserver",
                    max_restarts=1000,
                    shutdown_timeout=0.1,
                )
            finally:
                os._exit(1)

    def recorded(self, start: str = "*", kind: str = "*") -> set[int]:
        """What ranks have said of themselves and their children."""
        files = self.folder.glob(f"{start}/{kind}-*[0-9]")
        texts = [path.read_text() for path in files]
        return {int(text) for text in texts if text}

    def latest(self) -> set[int]:
        """The last start's processes if it is complete, and all of them live."""
        starts = sorted(int(path.name) for path in self.folder.iterdir())
        found = self.recorded(str(starts[-1])) if starts else set()
        # Two ranks with three children each.
        return found if len(found) == 8 and all(map(is_alive, found)) else set()

    def alive(self) -> set[int]:
        """All of its processes but the caller's own and the guardian: those recorded, and those
        that bear its name.
        """
        named = _named(self.folder.name, self._before)
        return {pid for pid in named | self.recorded() if is_alive(pid)} - {self.caller}

    def helpers(self, who: str) -> list[int]:
        """The caller's guardian or fork server, as one that lives."""
        children = _read(self.caller, f"task/{self.caller}/children").split()
        return [int(pid) for pid in children if _COMMANDS[who] in _read(int(pid), "cmdline")]

    def forked_ahead(self, servers: set[int]) -> set[int]:
        """Who waits to become a rank of the next start: at most as many as there are ranks. They
        have run no code of a rank's, so none has said anything of itself.
        """
        texts = [_read(server, f"task/{server}/children") for server in servers]
        found = {int(pid) for text in texts for pid in text.split()} - self.recorded()
        return found if len(found) <= 2 else set()

    def kill(self, who: str, moments: random.Random) -> None:
        """Kill one such process as soon as there is one."""

        def victims() -> list[int]:
            if who == "worker":
                return [pid for pid in self.recorded(kind="running") if is_alive(pid)]
            return self.helpers(who)

        while True:
            assert wait_until(victims, _SOON), f"no {who}"
            with suppress(ProcessLookupError, IndexError):  # it has just ended: another one, then
                os.kill(moments.choice(victims()), signal.SIGKILL)
                return

    def started_again(self) -> None:
        """Wait until a start is complete and, so many seconds later, nothing of earlier ones is
        left.
        """
        deadline = time.monotonic() + _SOON
        complete: float | None = None
        while True:
            latest, now = self.latest(), time.monotonic()
            server = set(self.helpers("fork server"))
            left = self.alive() - latest - server - self.forked_ahead(server)
            if latest and len(server) == 1 and self.helpers("guardian") and not left:
                return
            complete = (complete or now) if latest else None
            assert complete is None or now < complete + SECONDS, f"left: {left}"
            assert now < deadline, "it does not start again"
            time.sleep(0.02)

    def kill_caller(self) -> float:
        """Kill the caller; when its end was seen."""
        self.guardians = self.helpers("guardian")
        os.kill(self.caller, signal.SIGKILL)
        os.waitpid(self.caller, 0)
        return time.monotonic()

    def left(self) -> set[int]:
        """What should not be there after the end."""
        return self.alive() | {pid for pid in self.guardians if is_alive(pid)}


def _processes() -> Iterator[int]:
    return (int(entry.name) for entry in os.scandir("/proc") if entry.name.isdigit())


def _named(job: str, before: set[int]) -> set[int]:
    """The processes that bear a job's name, none of which was there ``before``: so polls are
    cheap.
    """
    needle = f"{_JOB}={job}".encode()
    pids = (pid for pid in _processes() if pid not in before)
    return {pid for pid in pids if needle in _read(pid, "environ").split(b"\0")}


def _read(pid: int, name: str) -> bytes:
    with suppress(OSError):
        return Path(f"/proc/{pid}/{name}").read_bytes()
    return b""


def test_whoever_of_a_caller_a_guardian_a_fork_server_and_a_worker_is_killed_leaves_nothing(
    moments: random.Random, tmp_path: Path, no_torch: None
) -> None:
    kills = 0
    for first in range(0, _JOBS, _AT_A_TIME):
        jobs = [Job(tmp_path, number) for number in range(first, min(_JOBS, first + _AT_A_TIME))]
        orders = [moments.sample(["guardian", "fork server", "worker"], 3) for _ in jobs]
        for turn in range(3):
            for job, order in zip(jobs, orders, strict=True):
                time.sleep(moments.uniform(0, 0.1))
                job.kill(order[turn], moments)
                kills += 1
        if (
            first % (2 * _AT_A_TIME) == 0
        ):  # the others' callers are killed in the middle of a restart
            for job in jobs:
                job.started_again()
        time.sleep(moments.uniform(0, 0.3))
        ends = [job.kill_caller() for job in jobs]
        kills += len(ends)
        for job, end in zip(jobs, ends, strict=True):
            gone = wait_until(lambda job=job: not job.left(), end + SECONDS - time.monotonic())
            assert gone, f"left: {job.left()}"
    assert kills == 4 * _JOBS


@pytest.mark.usefixtures("warm_agents")
def test_an_agent_process_that_is_killed_at_any_moment_leaves_nothing(
    moments: random.Random, tmp_path: Path
) -> None:
    """The first ones import torch then; the others have it."""
    methods = ("forkserver", "fork", "forkserver", "spawn")
    before = {*_processes()}
    for first in range(0, _AGENTS, _AT_A_TIME):
        with ExitStack() as stack:
            tasks: dict[Path, FakeTask] = {}
            for number in range(first, first + _AT_A_TIME):
                folder = tmp_path / str(number)
                folder.mkdir()
                job = spec(
                    worker_function("haunt", str(folder)),
                    str(folder),
                    nproc=2,
                    start_method=methods[number % len(methods)],
                )
                options = {"popen": subprocess.Popen} if first == 0 else {}
                task = FakeTask(job, env={_JOB: str(number)}, **options)
                tasks[folder] = stack.enter_context(task)
            waiting = {folder: moments.uniform(0, 6 if first == 0 else 2) for folder in tasks}
            began = time.monotonic()
            for folder in sorted(waiting, key=waiting.__getitem__):
                while time.monotonic() < began + waiting[folder]:
                    for task in tasks.values():
                        task.step(0.01)
                tasks[folder].process.kill()
                tasks[folder].process.wait()
                end = time.monotonic()
                gone = wait_until(
                    lambda f=folder: not _left(f, before), end + SECONDS - time.monotonic()
                )
                assert gone, f"left: {_left(folder, before)}"


def _left(folder: Path, before: set[int]) -> set[int]:
    """Living processes of the job that has this folder."""
    named = _named(folder.name, before)
    texts = [path.read_text() for path in folder.glob("*/*-*[0-9]")]
    return {pid for pid in named | {int(text) for text in texts if text} if is_alive(pid)}
