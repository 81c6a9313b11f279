"""The guardian: whichever process of the chain is killed, nothing of the job stays behind."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from llutil.agent.failures.report import WorkersFailed
from tests.support import worker_functions
from tests.support.forks import fork
from tests.support.launches import is_alive, launch, wait_until
from tests.support.privileges import forgo_signals_to_others

pytestmark = [pytest.mark.launch, pytest.mark.fault, pytest.mark.usefixtures("no_torch")]

METHODS = ["spawn", "fork", "forkserver"]
LIMIT = 60.0  # seconds on a loaded machine; the interval is 1000 s, so what ends a job is an event
GONE = 20.0  # seconds for the same for what is to end; a child that is overlooked lives for 60 s


def guardians_of(caller: int) -> list[int]:
    """The guardians below ``caller``, found by their command line."""
    found = []
    with suppress(OSError):
        for pid in Path(f"/proc/{caller}/task/{caller}/children").read_text().split():
            with suppress(OSError):
                if b"llutil.agent.guardian.main" in Path(f"/proc/{pid}/cmdline").read_bytes():
                    found.append(int(pid))
    return found


def pids(folder: str, kind: str = "running") -> list[int]:
    texts = [path.read_text() for path in Path(folder).glob(f"{kind}-*[0-9]")]
    return [int(text) for text in texts if text]  # whoever was killed may not have come to write it


def kill(refused: list[int]) -> None:
    for pid in refused:
        os.kill(pid, signal.SIGKILL)


@contextmanager
def forked_caller(
    folder: str, method: str, function: Callable[..., None] = worker_functions.hide_children
) -> Iterator[int]:
    """A process that launches two stubborn workers with children who hide; a fork of this one, to
    save time.
    """
    caller = fork()
    if caller == 0:
        try:
            forgo_signals_to_others()
            launch(function, folder, nproc=2, start_method=method)
        finally:
            os._exit(1)
    try:
        assert wait_until(lambda: len(pids(folder)) == 2, 40)
        yield caller
    finally:
        os.kill(caller, signal.SIGKILL)
        os.waitpid(caller, 0)


@pytest.mark.parametrize("method", METHODS)
def test_a_killed_caller_leaves_no_worker_no_child_of_one_no_guardian_and_no_page(
    method: str, folder: str
) -> None:
    with forked_caller(folder, method) as caller:
        (guardian,) = guardians_of(caller)
        page = Path(folder, "page").read_text()
        everybody = [*pids(folder), *pids(folder, "child"), guardian]
        assert len(everybody) == 9
        assert all(map(is_alive, everybody))
        assert Path(page).exists()
    assert wait_until(lambda: not [pid for pid in everybody if is_alive(pid)], GONE)
    assert wait_until(lambda: not Path(page).exists(), GONE)


def test_the_terminal_of_a_killed_agent_scrolls_all_of_its_lines_again() -> None:
    ours, terminal = os.openpty()
    pipe, agents = os.pipe()
    code = f"from llutil.agent.guardian.main import main; main({pipe}, 'of-no-process', 1)"
    guardian = subprocess.Popen(
        [sys.executable, "-c", code],
        stderr=terminal,
        pass_fds=(pipe,),
        env=os.environ | {"TERM": "xterm"},
    )
    os.close(pipe)
    os.close(agents)
    assert guardian.wait(LIMIT) == 0
    assert os.read(ours, 100) == b"\x1b7\x1b[r\x1b8"
    os.close(terminal)
    os.close(ours)


def test_a_process_that_may_not_be_signalled_hinders_neither_the_round_nor_its_report(
    folder: str, caplog: pytest.LogCaptureFixture
) -> None:
    """What is told of the failure, and the log, come from a fork that may not signal others."""
    told = Path(folder, "told")
    caller = fork()
    if caller == 0:
        try:
            forgo_signals_to_others()
            launch(worker_functions.start_as_another_user_and_fail, folder, max_restarts=1)
        except WorkersFailed as error:
            told.write_text("\n".join([str(error), *caplog.messages]))
        finally:
            os._exit(0)
    os.waitpid(caller, 0)
    refused = pids(folder, "refused")
    try:
        assert len(refused) == 2, "one of each start"
        assert all(map(is_alive, refused))
        text = told.read_text()
        assert "ValueError: no such digit" in text
        for pid in refused:
            assert f"process {pid} (sleep 60) may not be signalled by this user" in text
        assert "stuck" not in text
    finally:
        kill(refused)


def test_a_process_that_may_not_be_signalled_hinders_no_guardian(folder: str) -> None:
    with forked_caller(
        folder, "spawn", worker_functions.hide_children_and_one_of_another_user
    ) as caller:
        everybody = [*pids(folder), *pids(folder, "child"), *guardians_of(caller)]
    refused = pids(folder, "refused")
    try:
        assert wait_until(lambda: not [pid for pid in everybody if is_alive(pid)], GONE)
        assert len(refused) == 2, "one of each rank"
        assert all(map(is_alive, refused))
    finally:
        kill(refused)


def test_a_killed_guardian_is_replaced_and_its_successor_knows_everything(folder: str) -> None:
    with forked_caller(folder, "spawn") as caller:
        (first,) = guardians_of(caller)
        os.kill(first, signal.SIGKILL)
        assert wait_until(lambda: guardians_of(caller) not in ([], [first]))
        everybody = [*pids(folder), *pids(folder, "child"), *guardians_of(caller)]
        assert all(map(is_alive, everybody)), "nobody but the guardian was harmed"
    assert wait_until(lambda: not [pid for pid in everybody if is_alive(pid)], GONE)


def test_signals_that_mean_a_stop_do_not_end_the_guardian(folder: str) -> None:
    with forked_caller(folder, "fork") as caller:
        (guardian,) = guardians_of(caller)
        assert wait_until(lambda: ignores_stops(guardian))
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):
            os.kill(guardian, number)
        time.sleep(0.2)
        assert guardians_of(caller) == [guardian]


def ignores_stops(pid: int) -> bool:
    status = Path(f"/proc/{pid}/status").read_text()
    ignored = int(next(line for line in status.splitlines() if "SigIgn" in line).split()[1], 16)
    return bool(ignored >> (signal.SIGTERM - 1) & 1)


def test_a_frozen_guardian_does_not_hold_up_the_end_of_the_job(folder: str) -> None:
    def freeze() -> None:
        wait_until(lambda: pids(folder))
        for pid in guardians_of(os.getpid()):
            os.kill(pid, signal.SIGSTOP)

    thread = threading.Thread(target=freeze)
    thread.start()
    started = time.monotonic()
    assert launch(worker_functions.announce_and_return, folder, 1.0) == {0: "done"}
    assert time.monotonic() - started < LIMIT
    thread.join()


@pytest.mark.parametrize("method", METHODS)
def test_a_job_succeeds_though_its_guardian_is_killed_again_and_again(
    method: str, folder: str
) -> None:
    over = threading.Event()

    def kill() -> None:
        while not over.wait(0.05):
            for pid in guardians_of(os.getpid()):
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    continue

    thread = threading.Thread(target=kill)
    thread.start()
    try:
        assert launch(worker_functions.announce_and_return, folder, 1.0, start_method=method) == {
            0: "done"
        }
    finally:
        over.set()
        thread.join()


def test_a_killed_worker_takes_its_children_with_it(folder: str) -> None:
    with pytest.raises(WorkersFailed, match="SIGKILL"):
        launch(worker_functions.hide_children_and_be_killed, folder)
    assert len(pids(folder, "child")) == 3
    assert not [pid for pid in pids(folder, "child") if is_alive(pid)]


@pytest.mark.parametrize("method", METHODS)
def test_a_caller_killed_at_any_moment_leaves_nothing(method: str, folder: str) -> None:
    seed = random.SystemRandom().getrandbits(32)
    print("seed:", seed)
    moments = random.Random(seed)
    for _ in range(5):
        caller = fork()
        if caller == 0:
            try:
                launch(worker_functions.hide_children, folder, nproc=2, start_method=method)
            finally:
                os._exit(1)
        time.sleep(moments.uniform(0, 1.0))
        os.kill(caller, signal.SIGKILL)
        os.waitpid(caller, 0)
    everybody = [*pids(folder), *pids(folder, "child")]
    assert wait_until(lambda: not [pid for pid in everybody if is_alive(pid)], GONE)
