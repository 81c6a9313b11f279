"""The caller's process is afterwards as it was before, and can stop a job in every way it is used
to.
"""

from __future__ import annotations

import copy
import gc
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from torch.distributed.elastic.multiprocessing.api import SignalException

from llutil.agent.failures.report import WorkersFailed
from llutil.launcher.launch_agent import LaunchConfig, launch_agent
from tests.support import worker_functions
from tests.support.forks import fork, in_a_fork
from tests.support.launches import config, is_alive, launch, wait_until

pytestmark = [pytest.mark.launch, pytest.mark.usefixtures("no_torch")]

METHODS = ["spawn", "fork", "forkserver"]
LIMIT = 60.0  # seconds on a loaded machine; the interval is 1000 s, so what ends a job is an event


def surroundings() -> dict[str, Any]:
    """What of this process a launch could change."""
    gc.collect()
    return {
        "handlers": {n: signal.getsignal(n) for n in signal.valid_signals()},
        "mask": signal.pthread_sigmask(signal.SIG_BLOCK, []),
        "wakeup": current_wakeup_fd(),
        "environ": dict(os.environ),
        "path": list(sys.path),
        "argv": list(sys.argv),
        "main": sys.modules["__main__"],
        "cwd": Path.cwd(),
        "umask": current_umask(),
        "threads": {thread.name for thread in threading.enumerate()},
        "tasks": len(list(Path("/proc/self/task").iterdir())),
        "descriptors": sorted(int(fd.name) for fd in Path("/proc/self/fd").iterdir())[:-1],
        "children": Path(f"/proc/self/task/{os.getpid()}/children").read_text().split(),
        "streams": (sys.stdin, sys.stdout, sys.stderr),
        "excepthook": sys.excepthook,
    }


def current_wakeup_fd() -> int:
    fd = signal.set_wakeup_fd(-1)
    signal.set_wakeup_fd(fd)
    return fd


def current_umask() -> int:
    mask = os.umask(0o22)
    os.umask(mask)
    return mask


def difference(before: dict[str, Any]) -> dict[str, Any]:
    """What has changed, given a moment for threads of torch's to end."""
    changed: dict[str, Any] = {}

    def nothing() -> bool:
        after = surroundings()
        # A fork ends the threads of numpy's BLAS, which come back when they are needed: fewer is no
        # change.
        after["tasks"] = max(after["tasks"], before["tasks"])
        after["threads"] |= before["threads"]  # one of an earlier test may end at any moment
        changed.clear()
        changed.update(
            {name: (was, after[name]) for name, was in before.items() if was != after[name]}
        )
        return not changed

    wait_until(nothing, LIMIT)
    return changed


@pytest.fixture(scope="module", autouse=True)
def _warm() -> None:
    """What torch and Python set up once and keep is not a launch's."""
    launch_agent(config(), worker_functions.rank_and, [None])


@pytest.mark.parametrize("method", METHODS)
@in_a_fork
def test_after_success_everything_is_as_before(method: str) -> None:
    before = surroundings()
    launch(worker_functions.rank_and, None, nproc=2, start_method=method)
    assert difference(before) == {}


@pytest.mark.parametrize("method", METHODS)
@in_a_fork
def test_after_a_failure_everything_is_as_before(method: str) -> None:
    before = surroundings()
    with pytest.raises(WorkersFailed):
        launch(worker_functions.end, "raise", nproc=2, start_method=method)
    assert difference(before) == {}


@pytest.mark.parametrize("method", METHODS)
@in_a_fork
def test_after_a_stop_everything_is_as_before(method: str, folder: str) -> None:
    before = surroundings()
    with signalled(folder, signal.SIGTERM), pytest.raises(SignalException):
        launch(worker_functions.sleep, folder, start_method=method)
    assert difference(before) == {}


@in_a_fork
def test_after_a_restart_everything_is_as_before(folder: str) -> None:
    before = surroundings()
    launch(worker_functions.fail_until, 2, folder, max_restarts=2)
    assert difference(before) == {}


def test_the_configuration_is_not_changed() -> None:
    given = LaunchConfig(1, 1, 1, rdzv_configs={"last_call_timeout": 3}, metrics_cfg={"a": "null"})
    kept = copy.deepcopy(given)
    launch_agent(given, worker_functions.rank_and, [None])
    assert given == kept
    arguments = [[1, 2], {"a": 1}]
    launch_agent(given, worker_functions.rank_and, arguments[:1])
    assert arguments == [[1, 2], {"a": 1}]


@pytest.mark.parametrize("method", METHODS)
def test_a_caller_may_have_closed_its_standard_streams(method: str, tmp_path: Path) -> None:
    def prints() -> str:
        os.write(2, b"to a number that nothing else has\n")
        return str(Path("/proc/self/fd/2").readlink())

    pid = fork()
    if pid == 0:
        try:
            for fd in range(3):
                os.close(fd)
            told = str(launch(prints, nproc=2, start_method=method))
            os.write(2, b"another thread's launch may still count on it")
            (tmp_path / "told").write_text(told)
        except BaseException as error:
            (tmp_path / "told").write_text(repr(error))
        finally:
            os._exit(0)
    os.waitpid(pid, 0)
    assert (tmp_path / "told").read_text().startswith("{0: 'pipe:[")


@pytest.mark.parametrize("method", METHODS)
def test_a_job_may_be_launched_from_a_thread(method: str) -> None:
    before = surroundings()
    results: list[Any] = []
    thread = threading.Thread(
        target=lambda: results.append(
            launch(worker_functions.rank_and, 7, nproc=2, start_method=method)
        )
    )
    thread.start()
    thread.join(LIMIT)
    assert results == [{0: (0, 7), 1: (1, 7)}]
    assert difference(before) == {}


class SilentStore(MemoryFileSystem):  # type: ignore[misc]  # fsspec is untyped
    """A store of checkpoints that does not answer once a job has succeeded."""

    protocol = "silent"
    asked, answers = threading.Event(), threading.Event()
    was_answered: ClassVar[list[bool]] = []

    def rm_file(self, path: str) -> None:
        if "/.attempts/" in path:
            self.asked.set()
            self.was_answered.append(self.answers.wait(LIMIT))
        super().rm_file(path)


def test_a_stop_while_a_store_does_not_note_the_success_loses_no_value_and_is_the_callers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fsspec.register_implementation("silent", SilentStore, clobber=True)
    monkeypatch.setattr("llutil.launcher.job_end.SUCCESS_NOTED", 0.2)

    def stop() -> None:
        SilentStore.asked.wait(LIMIT)
        os.kill(os.getpid(), signal.SIGTERM)

    caught: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, _: caught.append(number))
    thread = threading.Thread(target=stop)
    try:
        thread.start()
        results = launch(
            worker_functions.rank_and, 7, run_id="told", checkpoint_path="silent://bucket"
        )
    finally:
        signal.signal(signal.SIGTERM, before)
        SilentStore.answers.set()
    thread.join()
    assert wait_until(lambda: SilentStore.was_answered)
    assert SilentStore.was_answered == [True]  # it was let answer once the launch had returned
    assert (results, caught) == ({0: (0, 7)}, [signal.SIGTERM])
    assert wait_until(lambda: "llutil-job-end" not in {one.name for one in threading.enumerate()})


def test_two_jobs_at_a_time_in_two_threads_do_not_touch_each_other(folder: str) -> None:
    """The end of the short one leaves every process of the long one."""
    results: dict[str, Any] = {}

    def long() -> None:
        results["long"] = launch(worker_functions.announce_and_return, folder, 1.5)

    def short() -> None:
        wait_until(lambda: Path(folder, "running-0").exists())
        results["short"] = launch(worker_functions.leave_a_thread)

    threads = [threading.Thread(target=target) for target in (long, short)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LIMIT)
    assert results == {"long": {0: "done"}, "short": {0: "done"}}


def test_a_caller_that_ignores_its_children_gets_their_exit_statuses_all_the_same(
    tmp_path: Path,
) -> None:
    script = tmp_path / "train.py"
    script.write_text("import os; raise SystemExit(int(os.environ['STATUS']))")
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("STATUS", "0")
            assert launch(str(script)) == {0: None}
            patch.setenv("STATUS", "3")
            with pytest.raises(WorkersFailed, match="exit code 3"):
                launch(str(script))
    finally:
        signal.signal(signal.SIGCHLD, before)


def _broken_pipe_ends_it() -> bool:
    ignored = next(
        line for line in Path("/proc/self/status").read_text().splitlines() if "SigIgn" in line
    )
    return not int(ignored.split()[1], 16) & 1 << signal.SIGPIPE - 1


def test_a_forked_rank_of_a_caller_that_broken_pipes_end_is_ended_by_them_too() -> None:
    before = signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    try:
        assert launch(_broken_pipe_ends_it, start_method="fork") == {0: True}
    finally:
        signal.signal(signal.SIGPIPE, before)


def test_a_worker_may_launch_a_job_of_its_own() -> None:
    assert launch(worker_functions.launch_within, 7, start_method="fork") == {
        0: {0: [0, 7], 1: [1, 7]}
    }


@contextmanager
def signalled(folder: str, *numbers: int, ranks: int = 1) -> Iterator[None]:
    """Send signals to this process: the first one when all ranks run, and each further one when all
    ranks have been asked to stop. The kernel makes one of two that wait for this process.
    """

    def send() -> None:
        for number, said in zip(numbers, ["running", *["asked"] * len(numbers)], strict=False):
            glob = f"{said}-*[0-9]"
            if not wait_until(lambda glob=glob: len(list(Path(folder).glob(glob))) == ranks):
                return
            os.kill(os.getpid(), number)

    thread = threading.Thread(target=send, name="sender")
    # Under nohup this process ignores SIGHUP, and so would the job.
    before = {number: signal.getsignal(number) for number in numbers}
    for number, handler in before.items():
        if handler is signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
    thread.start()
    try:
        yield
    finally:
        thread.join()
        for number, handler in before.items():
            signal.signal(number, handler)


def pids(folder: str) -> list[int]:
    return [int(path.read_text()) for path in Path(folder).glob("running-*[0-9]")]


@pytest.mark.fault
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_stops_the_job_after_it_could_save(folder: str, number: signal.Signals) -> None:
    started = time.monotonic()
    with signalled(folder, number, ranks=2), pytest.raises(SignalException) as caught:
        launch(
            lambda f: worker_functions.save_when_stopped(f, 1.0),
            folder,
            nproc=2,
            shutdown_timeout=LIMIT / 2,
        )
    assert caught.value.sigval is number
    if number != signal.SIGHUP:  # for which the workers have no handler
        assert {path.name for path in Path(folder).glob("saved-*")} == {"saved-0", "saved-1"}
    assert not [pid for pid in pids(folder) if is_alive(pid)]
    assert time.monotonic() - started < LIMIT


@pytest.mark.fault
def test_a_worker_that_ignores_the_stop_is_killed_after_its_grace(folder: str) -> None:
    started = time.monotonic()
    with signalled(folder, signal.SIGTERM), pytest.raises(SignalException):
        launch(worker_functions.ignore_stops, folder, shutdown_timeout=1.5)
    assert 1.5 < time.monotonic() - started < LIMIT
    assert not [pid for pid in pids(folder) if is_alive(pid)]


@pytest.mark.fault
def test_a_second_interrupt_forgoes_the_grace(folder: str) -> None:
    def go_on_when_asked(folder: str) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: Path(folder, "asked-0").touch())
        worker_functions.announce(folder)
        time.sleep(2 * LIMIT)

    started = time.monotonic()
    with (
        signalled(folder, signal.SIGINT, signal.SIGINT),
        pytest.raises(SignalException) as caught,
    ):
        launch(go_on_when_asked, folder, shutdown_timeout=2 * LIMIT)
    assert caught.value.sigval is signal.SIGINT
    assert time.monotonic() - started < LIMIT
    assert not [pid for pid in pids(folder) if is_alive(pid)]


@pytest.mark.fault
def test_a_signal_to_all_processes_at_once_is_a_stop_and_no_failure(folder: str) -> None:
    """As systemd and some containers send it; the workers may be heard to end before the agent
    hears its own.
    """

    def send() -> None:
        wait_until(lambda: len(pids(folder)) == 2)
        for pid in [*pids(folder), os.getpid()]:
            os.kill(pid, signal.SIGTERM)

    thread = threading.Thread(target=send)
    thread.start()
    with pytest.raises(SignalException):
        launch(worker_functions.sleep, folder, nproc=2, max_restarts=3)
    thread.join()


@pytest.mark.fault
def test_a_stop_while_failed_workers_are_being_stopped_does_not_start_them_again(
    folder: str,
) -> None:
    def one_fails_and_one_lingers(folder: str) -> None:
        if os.environ["RANK"] == "0":
            while not Path(folder, "running-1").exists():
                time.sleep(0.01)
            raise ValueError("no such digit")
        worker_functions.save_when_stopped(folder, 2.0)

    with signalled(folder, signal.SIGTERM), pytest.raises(SignalException):
        launch(
            one_fails_and_one_lingers,
            folder,
            nproc=2,
            max_restarts=3,
            shutdown_timeout=LIMIT / 2,
            restart_grace=LIMIT / 2,
        )
    assert sorted(path.name for path in Path(folder).iterdir()) == ["running-1", "saved-1"]


@pytest.mark.fault
def test_a_handler_of_the_callers_own_is_not_called_for_a_stop_and_is_put_back(
    folder: str,
) -> None:
    heard: list[int] = []

    def hear(number: int, _frame: object) -> None:
        heard.append(number)

    before = signal.signal(signal.SIGTERM, hear)
    try:
        with signalled(folder, signal.SIGTERM), pytest.raises(SignalException):
            launch(worker_functions.sleep, folder)
        assert heard == []
        os.kill(os.getpid(), signal.SIGTERM)
        assert heard == [signal.SIGTERM]
    finally:
        signal.signal(signal.SIGTERM, before)
