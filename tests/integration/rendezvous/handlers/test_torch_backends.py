"""Nodes and ranks find each other: alone, over torch's c10d, and by fixed ranks."""

from __future__ import annotations

import json
import logging
import os
import pickle
import signal
import socket
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from torch.distributed.elastic.multiprocessing.api import SignalException

from llutil.errors import ConfigError, RendezvousError, RendezvousTimeoutError
from llutil.launcher.device_count import worker_count
from llutil.launcher.launch_agent import LaunchConfig, launch_agent
from tests.support import collective_functions, worker_functions
from tests.support.forks import fork
from tests.support.launches import launch, wait_until
from tests.support.ports import free_ports

pytestmark = pytest.mark.launch

LIMIT = 60.0  # seconds on a loaded machine; the interval is 1000 s, so what ends a job is an event


@pytest.mark.parametrize("method", ["spawn", "fork", "forkserver"])
def test_ranks_of_one_node_meet_without_any_server(method: str) -> None:
    found = launch(collective_functions.all_reduce, nproc=2, start_method=method)
    assert found == {0: (0, 2, 11.0), 1: (1, 2, 11.0)}


@pytest.mark.parametrize(
    "backend", [{}, {"rdzv_backend": "c10d", "rdzv_endpoint": "localhost:0"}], ids=["none", "c10d"]
)
def test_ranks_make_a_store_of_their_own_if_torchs_variable_says_so(
    monkeypatch: pytest.MonkeyPatch, backend: dict[str, Any]
) -> None:
    monkeypatch.setenv("TORCH_DISABLE_SHARE_RDZV_TCP_STORE", "1")

    def shared() -> tuple[str, tuple[int, int, float]]:
        found = collective_functions.all_reduce()
        return os.environ["TORCHELASTIC_USE_AGENT_STORE"], found

    found = launch(shared, nproc=2, start_method="fork", **backend)
    assert found == {0: ("False", (0, 2, 11.0)), 1: ("False", (1, 2, 11.0))}


def test_ranks_train_together() -> None:
    found = launch(collective_functions.train, 3, nproc=2, start_method="fork")
    assert found[0] == found[1]
    assert len(found[0]) == 3


def test_ranks_meet_again_after_a_restart(folder: str) -> None:
    """The store is a new one: no key of the first round is met again."""
    found = launch(
        collective_functions.fail_once_and_all_reduce,
        folder,
        nproc=2,
        max_restarts=1,
        start_method="fork",
    )
    assert found == {0: (0, 2, 11.0), 1: (1, 2, 11.0)}


def test_one_node_may_also_meet_itself_over_c10d() -> None:
    found = launch(
        collective_functions.all_reduce,
        nproc=2,
        start_method="fork",
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
    )
    assert found == {0: (0, 2, 11.0), 1: (1, 2, 11.0)}


Node = Callable[[int], dict[int, Any]]


def on_nodes(count: int, node: Node, folder: str) -> list[dict[str, Any]]:
    """What ``node(n)`` gave in ``count`` processes at a time: forks of this one, which has torch
    imported.
    """
    pids = []
    for number in range(count):
        pid = fork()
        if pid == 0:
            try:
                result = node(number)
                Path(folder, f"node-{number}").write_text(json.dumps(result))
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(0)
        pids.append(pid)
    deadline = time.monotonic() + LIMIT
    while pids and time.monotonic() < deadline:
        pids = [pid for pid in pids if os.waitpid(pid, os.WNOHANG)[0] == 0]
        time.sleep(0.02)
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    assert not pids, "it hangs"
    return [json.loads(path.read_text()) for path in sorted(Path(folder).glob("node-*"))]


def c10d(port: int, nodes: int, nproc: int, **fields: Any) -> LaunchConfig:
    values: dict[str, Any] = {
        "run_id": "meeting",
        "rdzv_backend": "c10d",
        "rdzv_endpoint": f"127.0.0.1:{port}",
        "start_method": "fork",
        "max_restarts": 0,
        "monitor_interval": 1000,
        "local_addr": "127.0.0.1",
    }
    return LaunchConfig(nodes, nodes, nproc, **(values | fields))


def test_two_nodes_meet_over_c10d_and_each_gets_its_own_ranks(folder: str) -> None:
    (port,) = free_ports(1)
    started = time.monotonic()
    one, two = on_nodes(
        2, lambda _: launch_agent(c10d(port, 2, 2), collective_functions.all_reduce, []), folder
    )
    assert time.monotonic() - started < LIMIT
    assert sorted([*one, *two]) == ["0", "1", "2", "3"]
    assert [sorted(one), sorted(two)] in ([["0", "1"], ["2", "3"]], [["2", "3"], ["0", "1"]])
    for rank, value in (one | two).items():
        assert value == [int(rank), 4, 1111.0]


@pytest.mark.fault
def test_two_nodes_restart_together_when_a_rank_of_one_fails(folder: str) -> None:
    (port,) = free_ports(1)
    config = c10d(port, 2, 1, max_restarts=2, shutdown_timeout=2)
    started = time.monotonic()
    one, two = on_nodes(
        2,
        lambda _: launch_agent(config, collective_functions.fail_once_and_all_reduce, [folder]),
        folder,
    )
    assert time.monotonic() - started < LIMIT
    assert one | two == {"0": [0, 2, 11.0], "1": [1, 2, 11.0]}


@pytest.mark.fault
def test_a_node_that_comes_later_is_let_in(folder: str) -> None:
    (port,) = free_ports(1)
    config = c10d(port, 2, 1, monitor_interval=0.5, rdzv_configs={"last_call_timeout": 4})
    config = replace(config, min_nodes=1)

    def node(number: int) -> dict[int, Any]:
        if number == 1:
            assert wait_until(lambda: Path(folder, "waiting-1").exists())
        return launch_agent(config, collective_functions.all_reduce_once_there_are, [2, folder])

    one, two = on_nodes(2, node, folder)
    assert one | two == {"0": [0, 2, 11.0], "1": [1, 2, 11.0]}


def test_two_nodes_meet_by_fixed_ranks(folder: str) -> None:
    (port,) = free_ports(1)
    one, two = on_nodes(
        2,
        lambda number: launch_agent(
            c10d(port, 2, 2, rdzv_backend="static", rdzv_configs={"rank": number}),
            collective_functions.all_reduce,
            [],
        ),
        folder,
    )
    assert one == {"0": [0, 4, 1111.0], "1": [1, 4, 1111.0]}
    assert two == {"2": [2, 4, 1111.0], "3": [3, 4, 1111.0]}


@pytest.mark.parametrize(
    ("backend", "configs"),
    [
        ("c10d", {"is_host": False, "read_timeout": 2}),
        ("static", {"rank": 1, "timeout": 2}),
    ],
)
def test_an_endpoint_that_nobody_listens_on_is_an_error_in_bounded_time(
    backend: str, configs: dict[str, Any]
) -> None:
    (port,) = free_ports(1)
    started = time.monotonic()
    with pytest.raises(RendezvousError) as caught:
        launch_agent(
            c10d(port, 2, 1, rdzv_backend=backend, rdzv_configs=configs),
            worker_functions.rank_and,
            [0],
        )
    assert time.monotonic() - started < LIMIT
    text = str(caught.value)
    assert f"{backend} at 127.0.0.1:{port} failed (2 to 2 nodes wanted)" in text
    assert "'meeting'" in text
    assert caught.value.retryable


def test_too_few_nodes_are_an_error_after_the_timeout() -> None:
    (port,) = free_ports(1)
    started = time.monotonic()
    with pytest.raises(RendezvousTimeoutError, match=r"2 to 2 nodes wanted\): Rendezvous"):
        launch_agent(c10d(port, 2, 1, rdzv_configs={"timeout": 2}), worker_functions.rank_and, [0])
    assert 2 <= time.monotonic() - started < LIMIT


@pytest.mark.fault
def test_a_stop_ends_the_wait_for_other_nodes() -> None:
    (port,) = free_ports(1)
    before, over = signal.getsignal(signal.SIGTERM), threading.Event()

    def stop() -> None:
        while signal.getsignal(signal.SIGTERM) is before:  # it would end this process
            if over.wait(0.01):
                return
        if not over.wait(1.0):  # by then torch waits, unless the machine is busy
            os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=stop)
    thread.start()
    started = time.monotonic()
    try:
        with pytest.raises(SignalException):
            launch_agent(c10d(port, 2, 1), worker_functions.rank_and, [0])
    finally:
        over.set()
        thread.join()
    assert time.monotonic() - started < LIMIT


@pytest.mark.fault
def test_a_stop_ends_the_wait_for_other_nodes_ranks_and_what_ranks_returned_is_kept(
    folder: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (port,) = free_ports(1)

    def work(folder: str) -> str:
        if os.environ["GROUP_RANK"] == "0":
            Path(folder, "returned").touch()
            return "weeks of work"
        Path(folder, "runs").touch()
        assert wait_until(Path(folder, "over").exists, 2 * LIMIT)
        return ""

    def config(number: int) -> LaunchConfig:
        return c10d(
            port,
            2,
            1,
            rdzv_backend="static",
            rdzv_configs={"rank": number},
            log_dir=str(tmp_path),
        )

    pid = fork()
    if pid == 0:
        try:
            launch_agent(config(1), work, [folder])
        finally:
            os._exit(0)
    before, over = signal.getsignal(signal.SIGTERM), threading.Event()

    def stop() -> None:
        waits = "llutil-interruptible"
        while not (
            Path(folder, "runs").exists()
            and Path(folder, "returned").exists()
            and signal.getsignal(signal.SIGTERM) is not before
            and any(one.name == waits for one in threading.enumerate())
        ):
            if over.wait(0.01):
                return
        os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=stop)
    thread.start()
    try:
        with caplog.at_level(logging.WARNING, "llutil"), pytest.raises(SignalException):
            launch_agent(config(0), work, [folder])
        assert not Path(folder, "over").exists()
    finally:
        over.set()
        thread.join()
        Path(folder, "over").touch()
        os.waitpid(pid, 0)
    (kept,) = tmp_path.glob("**/rank_0.pickle")
    assert pickle.loads(kept.read_bytes()) == "weeks of work"
    assert f"it is kept on {os.uname().nodename} in {kept}" in caplog.text


@pytest.mark.parametrize(
    ("backend", "configs", "text"),
    [
        ("c10d", {"store_type": "zookeeper"}, "Invalid store type"),
        ("c10d", {"is_host": "perhaps"}, "is_host"),
        ("c10d", {"keep_alive_max_attempt": "many"}, "keep_alive_max_attempt"),
    ],
)
def test_options_that_torch_refuses_are_a_bad_configuration(
    backend: str, configs: dict[str, Any], text: str
) -> None:
    (port,) = free_ports(1)
    with pytest.raises(ConfigError, match=text):
        launch_agent(
            c10d(port, 1, 1, rdzv_backend=backend, rdzv_configs=configs),
            worker_functions.rank_and,
            [0],
        )


def test_a_handler_of_events_that_does_not_exist_is_a_bad_configuration() -> None:
    with pytest.raises(ConfigError, match="event_log_handler is 'nowhere'"):
        launch(worker_functions.rank_and, 0, event_log_handler="nowhere")


def test_the_port_of_a_round_is_bound_before_anybody_hears_of_it() -> None:
    """Nobody can take it in between, as with a port that was probed and freed."""

    def occupy() -> bool:
        address = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
        with socket.socket() as own:
            try:
                own.bind(address)
            except OSError:
                return True
        return False

    assert launch(occupy, start_method="fork") == {0: True}


def test_where_there_is_no_accelerator_auto_means_the_cpus_and_gpu_is_refused() -> None:
    assert worker_count("auto") == len(os.sched_getaffinity(0))
    with pytest.raises(ConfigError, match="nproc_per_node is 'gpu', but torch sees no accelerator"):
        worker_count("gpu")
