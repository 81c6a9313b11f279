"""The three ways to start a worker, side by side: the same session, streams, signals and end."""

from __future__ import annotations

import gc
import os
import select
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cloudpickle
import pytest

from llutil.agent.order import Order, write_order
from llutil.agent.outcome import Collector, ErrorNote, Returned
from llutil.agent.starting import Fork, ForkServer, Process, Spawn, Start, Starter
from llutil.entrypoint import Command, Entrypoint, Reference
from llutil.errors import InfrastructureError

pytestmark = pytest.mark.launch

ROOT = str(Path(__file__).parents[3])
HERE = "tests.integration.launcher.starts"
DEADLINE = 30.0


@dataclass
class Started:
    process: Process
    outcome: int
    stdout: int
    stderr: int

    def status(self) -> int:
        assert select.select([self.process.exit_fd], [], [], DEADLINE)[0], "it did not end"
        status = self.process.poll()
        assert status is not None
        return status

    def note(self) -> Returned | ErrorNote | None:
        collector = Collector()
        while select.select([self.outcome], [], [], DEADLINE)[0]:
            data = os.read(self.outcome, 1 << 16)
            if not data:
                break
            collector.feed(data)
        return collector.note()

    def value(self) -> Any:
        note = self.note()
        assert isinstance(note, Returned), note
        return cloudpickle.loads(note.content)


@contextmanager
def started(
    starter: Starter, entrypoint: Entrypoint | None, *, env: dict[str, str] | None = None
) -> Iterator[Started]:
    """A worker of ``starter``'s; ``entrypoint`` None means an order that cannot be read."""
    with ExitStack() as stack:
        if entrypoint is None:
            order = os.memfd_create("nonsense")
            os.write(order, b"nonsense")
        else:
            order = write_order(
                Order(entrypoint=entrypoint, sys_path=tuple(sys.path), result_limit=None)
            )
        theirs = [order]
        ours = []
        for _ in range(3):
            read, write = os.pipe2(os.O_CLOEXEC)
            stack.callback(os.close, read)
            ours.append(read)
            theirs.append(write)
        env = {"PATH": os.environ["PATH"], "PYTHONPATH": ROOT} | (env or {})
        try:
            process = starter.start(
                Start(
                    order_fd=order,
                    outcome_fd=theirs[1],
                    stdout=theirs[2],
                    stderr=theirs[3],
                    env=env,
                )
            )
        finally:
            for fd in theirs:
                os.close(fd)
        stack.callback(process.close)
        stack.callback(end, process)
        yield Started(process, *ours)


def end(process: Process) -> None:
    if process.poll() is None:
        os.kill(process.pid, signal.SIGKILL)
        assert select.select([process.exit_fd], [], [], DEADLINE)[0]
        process.poll()


def read_all(fd: int) -> str:
    text = b""
    while select.select([fd], [], [], DEADLINE)[0] and (data := os.read(fd, 1 << 16)):
        text += data
    return text.decode()


def state_of(pid: int) -> str | None:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    return stat.rpartition(")")[2].split()[0]


@pytest.fixture(scope="module", autouse=True)  # autouse: it is there before a test looks around
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ForkServer]:
    """One for the file, in a world without torch, whose import takes seconds."""
    server = ForkServer(without_torch(tmp_path_factory.mktemp("world")))
    yield server
    server.close()


def without_torch(folder: Path) -> dict[str, str]:
    """An environment in which torch cannot be imported."""
    (folder / "torch.py").write_text("raise ImportError('no torch in this world')")
    return {**os.environ, "PYTHONPATH": str(folder)}


@pytest.fixture(params=["spawn", "fork", "forkserver"])
def starter(request: pytest.FixtureRequest) -> Starter:
    match request.param:
        case "spawn":
            return Spawn()
        case "fork":
            return Fork(None, set)
        case _:
            found: Starter = request.getfixturevalue("server")
            return found


def test_a_worker_finds_what_it_was_promised_and_nothing_else(starter: Starter) -> None:
    with started(starter, Reference(f"{HERE}:facts", b""), env={"GREETING": "hello"}) as it:
        found = it.value()
        assert it.status() == 0
    assert found["session"] == found["pid"] == it.process.pid
    assert found["environ"]["GREETING"] == "hello"
    assert "HOME" not in found["environ"], "the environment is the order's, not the starter's"
    assert found["path"] == sys.path
    assert found["stdin"] == ""
    assert (found["sigterm"], found["sigint"]) == (True, True)
    assert int(found["blocked"].split()[1], 16) == 0


@pytest.mark.parametrize("starter", ["spawn", "forkserver"], indirect=True)
def test_workers_hold_no_descriptor_but_their_streams_and_the_outcome(starter: Starter) -> None:
    with started(starter, Reference(f"{HERE}:facts", b"")) as it:
        found = it.value()["descriptors"]
    extra = {fd: to for fd, to in found.items() if fd > 2 and not to.startswith("/proc/")}
    assert [to.partition(":")[0] for to in extra.values()] == ["pipe"], extra


def test_commands_hold_no_descriptor_but_their_streams(starter: Starter) -> None:
    callers = (
        inheritable() if isinstance(starter, Fork) else set()
    )  # what the caller meant to hand on
    with started(starter, Command("/bin/ls", ("-l", "/proc/self/fd"))) as it:
        listed = [line.split() for line in read_all(it.stdout).splitlines() if "->" in line]
    found = {int(line[-3]) for line in listed if not line[-1].startswith("/proc/")}
    assert found - callers == {0, 1, 2}


def inheritable() -> set[int]:
    found = set()
    for entry in Path("/proc/self/fd").iterdir():
        with suppress(OSError):  # the one that lists the folder
            if int(entry.name) > 2 and os.get_inheritable(int(entry.name)):
                found.add(int(entry.name))
    return found


def test_a_forked_worker_keeps_what_its_caller_has_open_but_nothing_of_the_agents() -> None:
    callers, agents = os.open("/dev/null", os.O_RDONLY), os.open("/dev/null", os.O_RDONLY)
    try:
        with started(Fork(None, lambda: {agents}), Reference(f"{HERE}:facts", b"")) as it:
            found = it.value()["descriptors"]
    finally:
        os.close(callers)
        os.close(agents)
    assert (callers in found, agents in found) == (True, False)


class Cycle:
    """Garbage that only the collector finds, and that says where it was finalized."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.itself = self

    def __del__(self) -> None:
        with self.path.open("a") as file:
            file.write(f"{os.getpid()}\n")


def test_a_forked_worker_leaves_its_callers_garbage_alone(tmp_path: Path) -> None:
    """A finalizer may wait for a thread that only the caller has, or free what native code still uses."""
    gc.disable()
    try:
        Cycle(tmp_path / "where")
        with started(Fork(None, set), Reference(f"{HERE}:collects", b"")) as it:
            it.value()
        gc.collect()
    finally:
        gc.enable()
    assert (tmp_path / "where").read_text() == f"{os.getpid()}\n"


def test_output_goes_where_the_start_says(starter: Starter) -> None:
    with started(starter, Reference(f"{HERE}:writes", b"")) as it:
        assert it.status() == 0
        assert read_all(it.stdout) == "to stdout\n"
        assert read_all(it.stderr) == "to stderr\n"


@pytest.mark.parametrize(
    ("script", "status"),
    [("exit 0", 0), ("exit 3", 3), ("kill -9 $$", -9), ("kill -11 $$", -11), ("kill -15 $$", -15)],
)
def test_the_status_is_the_kernels(starter: Starter, script: str, status: int) -> None:
    with started(starter, Command("/bin/sh", ("-c", script))) as it:
        assert it.status() == status
        assert it.note() is None


def test_a_crash_in_native_code_says_where_python_was(starter: Starter) -> None:
    with started(starter, Reference(f"{HERE}:crashes", b"")) as it:
        assert it.status() == -signal.SIGSEGV
        text = read_all(it.stderr)
    assert text.startswith("Fatal Python error: Segmentation fault")
    assert "in crashes" in text


def test_a_command_gets_the_signals_that_a_shell_would_give_it(starter: Starter) -> None:
    """Python ignores SIGPIPE; a program that inherits that prints errors where it should end."""
    pythons = 1 << signal.SIGPIPE - 1 | 1 << signal.SIGXFSZ - 1
    with started(starter, Command("/bin/grep", ("SigIgn", "/proc/self/status"))) as it:
        assert int(read_all(it.stdout).split()[1], 16) & pythons == 0


def test_an_ended_worker_keeps_its_number_until_it_is_let_go(starter: Starter) -> None:
    """Else a stranger could get the number, and be killed with the rest of the worker's session."""
    with started(starter, Command("/bin/true")) as it:
        assert it.status() == 0
        time.sleep(0.2)  # time for somebody to reap it
        assert state_of(it.process.pid) == "Z"
    assert wait_until(lambda: state_of(it.process.pid) is None)


@pytest.mark.fault
def test_a_signal_right_after_the_start_is_not_lost(starter: Starter) -> None:
    before = signal.signal(signal.SIGTERM, lambda *_: None)  # an agent has a handler of its own
    try:
        for _ in range(5):
            with started(starter, Reference(f"{HERE}:sleeps", b"")) as it:
                os.kill(it.process.pid, signal.SIGTERM)
                assert it.status() == -signal.SIGTERM
    finally:
        signal.signal(signal.SIGTERM, before)


def test_a_worker_that_cannot_read_its_order_says_why(starter: Starter) -> None:
    with started(starter, None) as it:
        assert it.status() != 0
        assert "JSONDecodeError" in read_all(it.stderr)


def wait_until(condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + 5
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


@pytest.mark.fault
def test_workers_of_the_fork_server_end_with_it_and_the_next_start_makes_another(
    tmp_path: Path,
) -> None:
    server = ForkServer(without_torch(tmp_path))
    try:
        with started(server, Reference(f"{HERE}:sleeps", b"")) as it:
            os.kill(server_pid(server), signal.SIGKILL)
            assert it.status() == -signal.SIGKILL
        with started(server, Command("/bin/true")) as it:
            assert it.status() == 0
    finally:
        server.close()


@pytest.mark.fault
def test_a_stop_of_all_processes_at_once_leaves_the_fork_server_to_its_agent(
    server: ForkServer,
) -> None:
    """As systemd and some containers do it. Were the server gone, its workers would get no grace."""
    with started(server, Reference(f"{HERE}:facts", b"")) as it:
        it.value()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        os.kill(server_pid(server), number)
    before = server_pid(server)
    with started(server, Command("/bin/true")) as it:
        assert it.status() == 0
    assert server_pid(server) == before


def test_the_fork_server_has_one_thread_with_torch_and_numpy_imported() -> None:
    server = ForkServer(os.environ)
    try:
        with started(server, Reference(f"{HERE}:imported", b"")) as it:
            assert it.value() == ["numpy", "torch"]
        assert len(list(Path(f"/proc/{server_pid(server)}/task").iterdir())) == 1
    finally:
        server.close()


def test_a_fork_server_that_cannot_start_a_worker_is_an_error_and_no_hang() -> None:
    server = ForkServer({**os.environ, "PYTHONHOME": "/nowhere"})
    try:
        with (
            pytest.raises(InfrastructureError, match="the fork server did not start a worker"),
            started(server, Command("/bin/true")),
        ):
            pass
    finally:
        server.close()


def server_pid(server: ForkServer) -> int:
    process = server._server
    assert process is not None
    return process.pid
