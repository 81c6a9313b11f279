"""Nodes that meet at a store which the first of them hosts: real agents, with no service beside
them.
"""

from __future__ import annotations

import faulthandler
import json
import logging
import os
import signal
import socket
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from llutil.errors import RendezvousError
from llutil.launcher.launch_agent import LaunchConfig, launch_agent
from llutil.rendezvous.hosted.store_handshake import new_secret
from tests.support import collective_functions, worker_functions
from tests.support.forks import fork
from tests.support.launches import wait_until

pytestmark = pytest.mark.launch

LIMIT = 60.0  # seconds on a loaded machine
SOON = {"keep_alive_interval": 1, "keep_alive_max_attempt": 5, "last_call_timeout": 1}
"""A node that is silent for five seconds is given up; more than a busy machine takes away from one
that lives.
"""

End = tuple[str, Any]
"""("values", what the ranks returned), or an error's class and text."""


class _Told(logging.Handler):
    """Writes down the address of the store that a node hosts."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if "hosts the store of the job at " in text:
            whole = self._path.with_suffix(".new")
            whole.write_text(text.rpartition(" ")[2])
            whole.rename(self._path)


class Nodes:
    """Agents in processes of their own: forks of this one, which has torch imported."""

    def __init__(self, folder: Path, nodes: str) -> None:
        low, _, high = nodes.partition(":")
        self._least, self._most = int(low), int(high or low)
        self.folder = folder
        self.secret = new_secret()
        self.pids: dict[str, int] = {}

    def start(
        self, name: str, index: int, function: Callable[..., Any], *args: Any, **fields: Any
    ) -> None:
        """Start the node ``name``; the one of index 0 hosts, and the others wait until it said
        where.
        """
        pid = fork()
        if pid == 0:
            stacks = (self.folder / f"stacks-{os.getpid()}").open("w")
            faulthandler.register(signal.SIGUSR1, file=stacks, all_threads=True)
            try:
                self._report(name, self._run(index, function, args, fields))
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(0)
        self.pids[name] = pid

    def kill(self, name: str) -> None:
        os.kill(self.pids[name], signal.SIGKILL)

    def end(self, name: str, seconds: float = LIMIT) -> End:
        """How it ended; its process has gone by then."""
        pid = self.pids.pop(name)
        if not wait_until(lambda: os.waitpid(pid, os.WNOHANG)[0] != 0, seconds):
            os.kill(pid, signal.SIGUSR1)
            stacks = self.folder / f"stacks-{pid}"
            wait_until(lambda: stacks.read_text().count("Current thread"), 5)
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            raise TimeoutError(f"node {name} hangs:\n{stacks.read_text()}")
        path = self.folder / f"end-{name}"
        return tuple(json.loads(path.read_text())) if path.exists() else ("killed", None)

    def close(self) -> None:
        for pid in self.pids.values():
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)

    def _report(self, name: str, end: End) -> None:
        (self.folder / f"end-{name}").write_text(json.dumps(end))

    def _run(self, index: int, function: Callable[..., Any], args: Any, fields: Any) -> End:
        door = self.folder / "door"
        log = logging.getLogger("llutil.agent.hosted_agent")
        log.setLevel(logging.INFO)
        if index == 0:
            log.addHandler(_Told(door))
        else:
            assert wait_until(door.exists, LIMIT)
        values: dict[str, Any] = {
            "run_id": "hosted",
            "rdzv_backend": "c10d",
            "rdzv_endpoint": door.read_text() if index else "127.0.0.1:0",
            "rdzv_configs": {"is_host": index == 0, "door": self.secret}
            | fields.pop("configs", {}),
            "start_method": "fork",
            "max_restarts": 0,
            "shutdown_timeout": 2,
            "node_index": index,
            "node_label": f"node {index}",
        }
        config = LaunchConfig(self._least, self._most, 1, **(values | fields))
        try:
            return "values", launch_agent(config, function, list(args))
        except Exception as error:
            return type(error).__name__, str(error)


@contextmanager
def nodes(folder: str, wanted: str) -> Iterator[Nodes]:
    made = Nodes(Path(folder), wanted)
    try:
        yield made
    finally:
        made.close()


def test_ranks_follow_the_preferred_places_and_all_meet(folder: str) -> None:
    """torch alone would order them by their process ids."""
    with nodes(folder, "3") as some:
        for index in (2, 1, 0):
            some.start(f"n{index}", index, collective_functions.all_reduce)
        for index in (0, 1, 2):
            assert some.end(f"n{index}") == ("values", {str(index): [index, 3, 111.0]})


@pytest.mark.fault
def test_all_start_again_together_when_a_rank_of_one_fails(folder: str) -> None:
    with nodes(folder, "2") as some:
        for index in (0, 1):
            some.start(
                f"n{index}",
                index,
                collective_functions.fail_once_and_all_reduce,
                folder,
                max_restarts=2,
            )
        assert some.end("n0") == ("values", {"0": [0, 2, 11.0]})
        assert some.end("n1") == ("values", {"1": [1, 2, 11.0]})


@pytest.mark.fault
def test_a_failure_without_restarts_left_is_told_on_every_node_in_full(folder: str) -> None:
    with nodes(folder, "2") as some:
        for index in (0, 1):
            some.start(f"n{index}", index, collective_functions.fail_once_and_all_reduce, folder)
        for index in (0, 1):
            kind, text = some.end(f"n{index}")
            assert kind == "WorkersFailed"
            assert "rank 1: ValueError: once" in text
            assert "of node 1 'node 1' on" in text
            assert "raise ValueError" in text


def wait_for_another_life(folder: str) -> tuple[int, int]:
    """The first life of rank 1 goes on until it is killed; the others end at once."""
    rank, path = int(os.environ["RANK"]), Path(folder, "lost")
    Path(folder, f"began-{rank}").touch()
    if rank == 1 and not path.exists():
        path.touch()
        time.sleep(LIMIT)
    return rank, int(os.environ["WORLD_SIZE"])


@pytest.mark.fault
def test_who_has_succeeded_runs_again_with_a_node_that_was_lost_and_came_back(folder: str) -> None:
    with nodes(folder, "2") as some:
        some.start("n0", 0, wait_for_another_life, folder, configs=SOON)
        some.start("n1", 1, wait_for_another_life, folder, configs=SOON)
        assert wait_until(Path(folder, "lost").exists)
        assert wait_until(Path(folder, "began-0").exists)
        some.kill("n1")
        assert some.end("n1") == ("killed", None)
        some.start("n1 again", 1, wait_for_another_life, folder, configs=SOON)
        assert some.end("n0") == ("values", {"0": [0, 2]})
        assert some.end("n1 again") == ("values", {"1": [1, 2]})


def once_more_alone(folder: str) -> int:
    """Alone, together, and alone again; how many there are in the end."""
    both, world = Path(folder, "both"), int(os.environ["WORLD_SIZE"])
    Path(folder, f"in-{world}").touch()
    if world == 1 and both.exists():
        return world
    if world == 2:
        both.touch()
    time.sleep(LIMIT)
    raise AssertionError("nobody came, or nobody went")


@pytest.mark.fault
def test_a_node_is_let_in_later_and_the_others_go_on_when_it_is_lost(folder: str) -> None:
    """No worker fails, or notices anything: the agents do."""
    with nodes(folder, "1:2") as some:
        some.start("n0", 0, once_more_alone, folder, configs=SOON)
        assert wait_until(Path(folder, "in-1").exists)
        some.start("n1", 1, once_more_alone, folder, configs=SOON)
        assert wait_until(Path(folder, "both").exists)
        some.kill("n1")
        assert some.end("n0") == ("values", {"0": 1})
        assert some.end("n1") == ("killed", None)


@pytest.mark.fault
def test_the_loss_of_the_host_ends_the_others_soon_and_is_named(folder: str) -> None:
    with nodes(folder, "2") as some:
        some.start("n0", 0, wait_for_another_life, folder, configs=SOON)
        some.start("n1", 1, wait_for_another_life, folder, configs=SOON)
        assert wait_until(Path(folder, "lost").exists)
        some.kill("n0")
        kind, text = some.end("n1", seconds=20)
        assert kind == "ServerLostError"
        assert "node 0, which hosts the job's store at 127.0.0.1:" in text
        assert "is gone" in text


def test_a_port_of_another_program_is_refused_and_makes_nobody_wait(folder: str) -> None:
    """torch's client would wait for it for ever."""
    with socket.create_server(("127.0.0.1", 0)) as silent, nodes(folder, "2") as some:
        Path(folder, "door").write_text(f"127.0.0.1:{silent.getsockname()[1]}")
        some.start("n1", 1, worker_functions.rank_and, 0)
        kind, text = some.end("n1", seconds=30)
        assert kind == "ServerLostError"
        assert "nobody is there whose store node 0 hosts" in text


def test_an_address_of_another_machine_cannot_be_hosted_at() -> None:
    config = LaunchConfig(
        2,
        2,
        1,
        rdzv_backend="c10d",
        rdzv_endpoint="192.0.2.1:0",
        rdzv_configs={"is_host": True, "door": "secret"},
    )
    with pytest.raises(RendezvousError, match=r"its own address '192\.0\.2\.1'.*give local_addr"):
        launch_agent(config, worker_functions.rank_and, [0])
