"""Workers that are forked from a server with torch imported are as workers of an interpreter of
their own, but sooner.
"""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest

from llutil.agent.failures.report import WorkersFailed
from llutil.agent.start_methods.forkserver_client import ForkServer
from llutil.agent.start_methods.spawn_and_fork import Spawn
from llutil.agent.start_methods.starter import Starter
from llutil.entrypoint import Command, FunctionName
from llutil.launcher import warm_workers
from llutil.launcher.shared_forkserver import SharedForkServer, shared_fork_server
from tests.integration.agent.start_methods.started_worker import (
    START_FUNCTIONS,
    TORCH_WORLD,
    WORLD,
    server_pid,
    started,
)
from tests.support import worker_functions
from tests.support.forks import fork
from tests.support.launches import is_alive, launch, wait_until

pytestmark = pytest.mark.launch

CORES = len(os.sched_getaffinity(0))


@pytest.fixture(scope="module")
def warm() -> Iterator[ForkServer]:
    """With torch, so one for the file. It was started while this process had many descriptors
    open.
    """
    with ExitStack() as stack:
        for _ in range(50):
            read, write = os.pipe()
            for fd in (read, write):
                os.set_inheritable(fd, True)
                stack.callback(os.close, fd)
        server = ForkServer(TORCH_WORLD | {"OMP_NUM_THREADS": "1"})
        stack.callback(server.close)
        yield server


def facts(starter: Starter, **env: str) -> dict[str, Any]:
    world = TORCH_WORLD | {"OMP_NUM_THREADS": "1"} | env
    with started(starter, FunctionName(f"{START_FUNCTIONS}:warm_facts", b""), env=world) as it:
        found: dict[str, Any] = it.value()
        return found


def test_the_server_has_one_thread_when_it_forks_with_torch_and_numpy_and_no_cuda(
    warm: ForkServer,
) -> None:
    found = facts(warm)
    assert found["server"] == server_pid(warm)
    assert found["imported"] == ["numpy", "torch"]
    assert found["server's threads"] == 1
    assert found["cuda"] is False
    assert "/libcuda.so" not in Path(f"/proc/{server_pid(warm)}/maps").read_text()


def test_the_server_holds_no_descriptor_but_its_own(warm: ForkServer) -> None:
    facts(warm)
    folder = Path(f"/proc/{server_pid(warm)}/fd")
    assert wait_until(lambda: len(list(folder.iterdir())) == 5), "the ended worker's are given back"
    descriptors = {int(fd.name): str(fd.readlink()) for fd in folder.iterdir()}
    own = {descriptors[fd].partition(":")[0] for fd in set(descriptors) - {0, 1, 2}}
    assert own == {"socket", "anon_inode"}, "the channel, and the agent's pidfd"
    assert descriptors[0] == "/dev/null"
    assert [descriptors[fd] for fd in (1, 2)] == [
        str(Path(f"/proc/self/fd/{n}").readlink()) for n in (1, 2)
    ]


def test_a_worker_that_was_forked_ahead_is_as_any_other(warm: ForkServer) -> None:
    entrypoint = FunctionName(f"{START_FUNCTIONS}:facts", b"")
    world = TORCH_WORLD | {"OMP_NUM_THREADS": "1"}
    with started(warm, entrypoint, env=world) as it:
        usual = it.value()
    warm.prepare(2)
    assert wait_until(lambda: len(warm.ready) == 2)  # each look waits for them a moment
    ready = warm.ready
    for pid in ready:
        os.kill(pid, signal.SIGTERM)  # as a batch system sends to all processes of its job
    with started(warm, entrypoint, env=world | {"MORE": "1"}) as it:
        found = it.value()
    assert found["pid"] in ready
    assert list(warm.ready) == [pid for pid in ready if pid != found["pid"]]
    assert found.pop("environ") == usual.pop("environ") | {"MORE": "1"}
    kinds = [
        sorted(text.partition(":")[0] for text in one.pop("descriptors").values())
        for one in (found, usual)
    ]
    assert kinds[0] == kinds[1]
    assert found.pop("session") == found.pop("pid")
    del usual["session"], usual["pid"]
    assert found == usual
    with started(warm, entrypoint, env=world) as it:
        assert it.value()["pid"] in ready
    assert warm.ready == {}


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_torch_takes_the_number_of_threads_from_the_workers_environment(
    warm: ForkServer, threads: int
) -> None:
    found = facts(warm, OMP_NUM_THREADS=str(threads))
    assert (found["server"], found["torch threads"]) == (server_pid(warm), threads)


@pytest.mark.parametrize(
    ("env", "threads"),
    [
        ({}, CORES),
        ({"OMP_NUM_THREADS": "1"}, 1),
        ({"OPENBLAS_NUM_THREADS": "2"}, min(2, CORES)),
        ({"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "2"}, min(2, CORES)),
    ],
    ids=lambda value: ",".join(value) if isinstance(value, dict) else str(value),
)
def test_numpys_blas_gets_the_threads_that_a_fresh_interpreter_gives_it(
    env: dict[str, str], threads: int
) -> None:
    """The server's has one, since it must not have threads."""
    numpy_only = {**WORLD, **env}
    counts = []
    with ExitStack() as stack:
        preload = numpy_only | {"PYTHONPATH": f"{_with_numpy()}{os.pathsep}{WORLD['PYTHONPATH']}"}
        server = ForkServer(preload)
        stack.callback(server.close)
        spawn = Spawn(WORLD)
        stack.callback(spawn.close)
        for starter in (server, spawn):
            with started(
                starter, FunctionName(f"{START_FUNCTIONS}:blas_threads", b""), env=preload
            ) as it:
                counts.append(it.value())
    assert counts == [threads, threads]


def _with_numpy() -> str:
    """A folder whose torch imports numpy and nothing else."""
    return str(Path(__file__).parents[3] / "support/stub_modules/torch_is_numpy")


def test_what_a_forked_worker_cannot_get_any_more_it_gets_from_an_interpreter_of_its_own(
    warm: ForkServer, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "llutil"):
        again = [facts(warm, PYTHONHASHSEED="7") for _ in range(2)]
    assert {found["server"] for found in again} == {server_pid(warm)}, "which starts it"
    assert again[0]["hash"] == again[1]["hash"] != facts(warm)["hash"]
    (line,) = caplog.messages
    assert "PYTHONHASHSEED differ from what the fork server was started with" in line


def test_a_server_that_has_a_second_thread_does_not_fork(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "torch.py").write_text(
        "import threading, time\nthreading.Thread(target=time.sleep, args=(60,), "
        "daemon=True).start()\n"
        "raise ImportError\n"
    )
    world = WORLD | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{WORLD['PYTHONPATH']}"}
    server = ForkServer(world)
    try:
        with started(server, FunctionName(f"{START_FUNCTIONS}:facts", b""), env=world) as it:
            assert it.value()["parent"] == server_pid(server)
        with started(server, Command("/bin/true"), env=world) as it:
            assert it.status() == 0
    finally:
        server.close()
    assert ["the fork server has 2 threads" in line for line in caplog.messages] == [True]


@pytest.mark.usefixtures("no_torch")
def test_a_restart_uses_the_same_server(folder: str) -> None:
    """That carries the job's mark, by which all that a round left behind is found and ended."""
    launch(
        f"{START_FUNCTIONS}:fail_once", folder, nproc=2, max_restarts=1, start_method="forkserver"
    )
    servers = {path.name: path.read_text() for path in Path(folder).iterdir()}
    # The first round may be over before one of its ranks has said anything, or all of it.
    assert servers["1.0"]
    assert {servers["1.0"]} == set(filter(None, servers.values()))
    assert {"1.0", "1.1"} < servers.keys()
    assert str(os.getpid()) not in servers.values()


@pytest.mark.fault
@pytest.mark.usefixtures("no_torch")
def test_a_server_that_dies_in_the_middle_of_a_rounds_start_costs_no_job(folder: str) -> None:
    """Rank 0 kills it as soon as it runs, while others are being started, or just after that."""
    results = launch(
        f"{START_FUNCTIONS}:kill_server_once",
        folder,
        nproc=12,
        max_restarts=1,
        start_method="forkserver",
    )
    assert results == dict.fromkeys(range(12), "done")


@pytest.mark.usefixtures("no_torch")
def test_launches_in_a_block_of_warm_workers_share_a_server_that_ends_with_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def server(nproc: int = 1) -> int:
        (parent,) = set(launch(os.getppid, nproc=nproc, start_method="forkserver").values())
        return int(parent)

    with warm_workers():
        first = server()
        assert server(nproc=2) == first
        os.kill(first, signal.SIGKILL)
        assert wait_until(lambda: not is_alive(first))
        second = server()
        assert second not in {first, os.getpid()}
        with warm_workers():
            assert server() not in {first, second}
        monkeypatch.setenv("PYTHONHASHSEED", "7")
        assert server() not in {second, os.getpid()}, "it has one of its own"
        monkeypatch.delenv("PYTHONHASHSEED")
        with pytest.raises(WorkersFailed):
            launch(f"{START_FUNCTIONS}:crashes", start_method="forkserver")
        assert server() == second
    assert wait_until(lambda: not is_alive(second))
    assert server() != second


@pytest.mark.usefixtures("no_torch")
def test_one_launch_at_a_time_uses_a_shared_server() -> None:
    """Its jobs share a mark, and what carries it is ended with a round."""
    shared = SharedForkServer()
    try:
        server = shared.take(os.environ)
        assert server is not None
        assert shared.take(os.environ) is None
        shared.give_back(1)
        assert shared.take({**os.environ, "LD_PRELOAD": "libother.so"}) is None
        assert shared.take({**os.environ, "OMP_NUM_THREADS": "1"}) is server
    finally:
        shared.close()


@pytest.mark.usefixtures("no_torch")
def test_a_fork_of_the_caller_that_launches_or_ends_hinders_no_job_of_the_block(
    folder: str,
) -> None:
    """A pool of processes that launch trials forks so."""

    def wait_for_the_fork(folder: str) -> str:
        Path(folder, f"begun-{os.environ['RANK']}").touch()
        assert wait_until(Path(folder, "launched").exists, 120)
        return "done"

    def launch_and_leave() -> None:
        assert wait_until(lambda: len(list(Path(folder).glob("begun-*"))) == 2, 120)
        launch(os.getppid, start_method="forkserver")
        raise SystemExit

    with warm_workers():
        server = set(launch(os.getppid, nproc=2, start_method="forkserver").values())
        pid = fork()
        if pid == 0:
            try:
                shared = shared_fork_server()
                assert shared is not None
                with closing(shared):
                    launch_and_leave()
            finally:
                Path(folder, "launched").touch()
                os._exit(0)
        results = launch(wait_for_the_fork, folder, nproc=2, start_method="forkserver")
        os.waitpid(pid, 0)
        assert results == {0: "done", 1: "done"}
        assert set(launch(os.getppid, nproc=2, start_method="forkserver").values()) == server


@pytest.mark.fault
@pytest.mark.usefixtures("no_torch")
def test_a_killed_caller_in_a_block_of_warm_workers_leaves_nothing(folder: str) -> None:
    def children() -> list[int]:
        texts = [path.read_text() for path in Path(folder).glob("*-*[0-9]")]
        return [int(text) for text in texts if text]

    caller = fork()
    if caller == 0:
        try:
            with warm_workers():
                server = next(iter(launch(os.getppid, start_method="forkserver").values()))
                Path(folder, "child-0-0").write_text(str(server))
                launch(worker_functions.hide_children, folder, nproc=2, start_method="forkserver")
        finally:
            os._exit(1)
    assert wait_until(lambda: len(children()) == 9, 40)
    everybody = children()
    os.kill(caller, signal.SIGKILL)
    os.waitpid(caller, 0)
    # A child that is overlooked lives for 60 s.
    assert wait_until(lambda: not [pid for pid in everybody if is_alive(pid)], 20)


def test_a_shared_fork_server_gets_no_number_of_a_closed_stream(tmp_path: Path) -> None:
    pid = fork()
    if pid == 0:
        try:
            os.close(2)
            with warm_workers():
                (tmp_path / "found").write_text(str(Path("/proc/self/fd/2").readlink()))
        finally:
            os._exit(0)
    os.waitpid(pid, 0)
    assert (tmp_path / "found").read_text() == "/dev/null"
