"""The three ways to start a worker, side by side: the same session, streams, signals and end."""

from __future__ import annotations

import gc
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest

from llutil.agent.start_methods.forkserver_client import ForkServer
from llutil.agent.start_methods.spawn_and_fork import Fork, Spawn
from llutil.agent.start_methods.starter import Starter
from llutil.entrypoint import Command, FunctionName
from llutil.errors import InfrastructureError
from tests.integration.agent.start_methods.started_worker import (
    START_FUNCTIONS,
    WORLD,
    read_all,
    server_pid,
    started,
)
from tests.support.launches import wait_until

pytestmark = pytest.mark.launch


def state_of(pid: int) -> str | None:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    return stat.rpartition(")")[2].split()[0]


@pytest.fixture(scope="module", autouse=True)  # autouse: it is there before a test looks around
def server() -> Iterator[ForkServer]:
    """One for the file."""
    server = ForkServer(WORLD | {"SERVER": "yes"})
    yield server
    server.close()


@pytest.fixture(scope="module", autouse=True)  # as above
def spawn() -> Iterator[Spawn]:
    spawn = Spawn(WORLD | {"SERVER": "yes"})
    yield spawn
    spawn.close()


@pytest.fixture(params=["spawn", "fork", "forkserver"])
def starter(request: pytest.FixtureRequest) -> Iterator[Starter]:
    match request.param:
        case "fork":
            with closing(Fork(None, set)) as fork:
                yield fork
        case "spawn":
            yield request.getfixturevalue("spawn")
        case _:
            yield request.getfixturevalue("server")


def test_a_worker_finds_what_it_was_promised_and_nothing_else(starter: Starter) -> None:
    with started(
        starter, FunctionName(f"{START_FUNCTIONS}:facts", b""), env=WORLD | {"GREETING": "hello"}
    ) as it:
        found = it.value()
        assert it.status() == 0
    assert found["session"] == found["pid"] == it.process.pid
    assert found["environ"]["GREETING"] == "hello"
    assert not {"HOME", "SERVER"} & set(found["environ"]), "the environment is the order's"
    assert [found["parent"]] == list(starter.processes)
    assert found["path"] == sys.path
    assert found["stdin"] == ""
    assert (found["sigterm"], found["sigint"]) == (True, True)
    assert int(found["blocked"].split()[1], 16) == 0


@pytest.mark.parametrize("starter", ["spawn", "forkserver"], indirect=True)
def test_workers_hold_no_descriptor_but_their_streams_the_outcome_and_the_file_of_their_stacks(
    starter: Starter,
) -> None:
    with started(starter, FunctionName(f"{START_FUNCTIONS}:facts", b"")) as it:
        found = it.value()["descriptors"]
    extra = {fd: to for fd, to in found.items() if fd > 2 and not to.startswith("/proc/")}
    assert sorted(to.partition(":")[0] for to in extra.values()) == ["/memfd", "pipe"], extra


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
        with (
            closing(Fork(None, lambda: {agents})) as fork,
            started(fork, FunctionName(f"{START_FUNCTIONS}:facts", b"")) as it,
        ):
            found = it.value()["descriptors"]
    finally:
        os.close(callers)
        os.close(agents)
    # A file of the worker's own may have got the number.
    assert (found.get(callers), found.get(agents) == "/dev/null") == ("/dev/null", False)


class Cycle:
    """Garbage that only the collector finds, and that says where it was finalized."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.itself = self

    def __del__(self) -> None:
        with self.path.open("a") as file:
            file.write(f"{os.getpid()}\n")


def test_a_forked_worker_leaves_its_callers_garbage_alone(tmp_path: Path) -> None:
    """A finalizer may wait for a thread that only the caller has, or free what native code still
    uses.

    The collector must not even run in handlers of others that are called inside ``os.fork``, as
    Airflow's is.
    """
    others: list[Callable[[], object]] = [
        lambda: (tmp_path / "on").touch() if gc.isenabled() else None
    ]
    os.register_at_fork(after_in_child=lambda: [call() for call in others])
    try:
        with (
            closing(Fork(None, set)) as fork,
            started(fork, FunctionName(f"{START_FUNCTIONS}:collects", b"")) as it,
        ):
            it.value()
    finally:
        others.clear()  # the registration itself cannot be undone
    assert not (tmp_path / "on").exists()
    assert gc.isenabled()
    gc.disable()
    try:
        Cycle(tmp_path / "where")
        with (
            closing(Fork(None, set)) as fork,
            started(fork, FunctionName(f"{START_FUNCTIONS}:collects", b"")) as it,
        ):
            it.value()
        gc.collect()
    finally:
        gc.enable()
    assert (tmp_path / "where").read_text() == f"{os.getpid()}\n"


def test_output_goes_where_the_start_says(starter: Starter) -> None:
    with started(starter, FunctionName(f"{START_FUNCTIONS}:writes", b"")) as it:
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
    with started(starter, FunctionName(f"{START_FUNCTIONS}:crashes", b"")) as it:
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


def test_what_a_worker_has_left_and_has_ended_is_reaped(starter: Starter) -> None:
    """Its parent is gone, and the process that starts workers has adopted it."""
    orphan = "(setsid env -i sh -c 'echo $$' &) | cat"  # which ends after the orphan
    with started(starter, Command("/bin/sh", ("-c", orphan))) as it:
        pid = int(read_all(it.stdout))
        assert it.status() == 0
    assert wait_until(lambda: state_of(pid) is None)


@pytest.mark.fault
def test_a_signal_right_after_the_start_is_not_lost(starter: Starter) -> None:
    before = signal.signal(signal.SIGTERM, lambda *_: None)  # an agent has a handler of its own
    try:
        for _ in range(5):
            with started(starter, FunctionName(f"{START_FUNCTIONS}:sleeps", b"")) as it:
                os.kill(it.process.pid, signal.SIGTERM)
                assert it.status() == -signal.SIGTERM
    finally:
        signal.signal(signal.SIGTERM, before)


def test_a_worker_that_cannot_read_its_order_says_why(starter: Starter) -> None:
    with started(starter, None) as it:
        assert it.status() != 0
        assert "JSONDecodeError" in read_all(it.stderr)


@pytest.mark.fault
def test_workers_of_the_fork_server_end_with_it_and_the_next_start_makes_another() -> None:
    server = ForkServer(WORLD)
    try:
        with started(server, FunctionName(f"{START_FUNCTIONS}:sleeps", b"")) as it:
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
    """As systemd and some containers do it. Were the server gone, its workers would get no
    grace.
    """
    with started(server, FunctionName(f"{START_FUNCTIONS}:facts", b"")) as it:
        it.value()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        os.kill(server_pid(server), number)
    before = server_pid(server)
    with started(server, Command("/bin/true")) as it:
        assert it.status() == 0
    assert server_pid(server) == before


def test_a_fork_server_that_cannot_start_a_worker_is_an_error_and_no_hang() -> None:
    home = {"PYTHONHOME": "/nowhere"}
    server = ForkServer(WORLD | home)
    try:
        with (
            pytest.raises(InfrastructureError, match="did not start one"),
            started(server, Command("/bin/true"), env=WORLD | home),
        ):
            pass
    finally:
        server.close()
