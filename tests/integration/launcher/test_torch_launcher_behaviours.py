"""What the tests of torch's own launcher check (its api_test and run_test), checked of ours.

Workers that take part in a collective are forked from this process, which has torch imported; the
others find none. Where torch's tests look at calls of a stand-in, these look at what somebody else
would notice.
"""

from __future__ import annotations

import json
import logging
import os
import stat
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from signal import SIGINT, SIGTERM, Signals
from typing import Any

import pytest
from torch.distributed import TCPStore
from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

from llutil.errors import RendezvousError
from llutil.launcher import elastic_launch
from llutil.launcher.config import LaunchConfig
from llutil.std import Std
from tests.support import collective_functions, worker_functions
from tests.support.etcd_servers import EtcdServer, etcd
from tests.support.forks import fork
from tests.support.launches import wait_until
from tests.support.leftovers import MARK
from tests.support.node_pair import NodePair
from tests.support.ports import free_ports
from tests.support.store_history import read_history
from tests.support.torch_forks import TorchForks

pytestmark = [pytest.mark.etcd, pytest.mark.launch, pytest.mark.usefixtures("no_torch")]

SCRIPT = """
import os, sys
assert os.environ["SENTINEL_OF_THE_PARENT"] == "here"
for name in ("RANK", "LOCAL_RANK", "GROUP_RANK", "ROLE_RANK", "ROLE_NAME", "LOCAL_WORLD_SIZE",
             "WORLD_SIZE", "ROLE_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT",
             "TORCHELASTIC_RESTART_COUNT",
             "TORCHELASTIC_MAX_RESTARTS", "TORCHELASTIC_RUN_ID", "TORCHELASTIC_ERROR_FILE"):
    assert os.environ[name], name
if "--fail" in sys.argv:
    raise RuntimeError("--fail was given")
open(os.path.join(sys.argv[1], os.environ["RANK"]), "w").close()
"""


@pytest.fixture(scope="module")
def server() -> Iterator[EtcdServer]:
    with etcd() as server:
        yield server


@pytest.fixture(scope="module")
def pair(server: EtcdServer, torch_forks: TorchForks) -> Iterator[NodePair]:
    with ExitStack() as stack:
        place = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="pair-")))
        pair = NodePair(torch_forks, place, str(server.endpoint))
        stack.callback(pair.close)
        yield pair


@pytest.fixture(autouse=True)
def _sentinel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SENTINEL_OF_THE_PARENT", "here")


@pytest.fixture
def script(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("scripts") / "train.py"
    path.write_text(SCRIPT)
    return str(path)


def on_etcd(server: EtcdServer, low: int, high: int, nproc: int, **fields: Any) -> LaunchConfig:
    options: dict[str, Any] = {"last_call_timeout": 0.5, "timeout": 60}
    values: dict[str, Any] = {
        "run_id": f"run-{time.monotonic_ns()}",
        "rdzv_endpoint": str(server.endpoint),
        "rdzv_configs": options | fields.pop("rdzv_configs", {}),
        "max_restarts": 0,
        "shutdown_timeout": 5,
    }
    return LaunchConfig(low, high, nproc, **(values | fields))


def ran(folder: str) -> set[str]:
    return {path.name for path in Path(folder).iterdir()}


def test_a_python_script_started_by_its_interpreter(
    server: EtcdServer, script: str, folder: str
) -> None:
    found = elastic_launch(on_etcd(server, 1, 1, 4), sys.executable)("-u", script, folder)
    assert found == dict.fromkeys(range(4))
    assert ran(folder) == {"0", "1", "2", "3"}


def test_a_bash_script(server: EtcdServer, tmp_path: Path, folder: str) -> None:
    path = tmp_path / "train.sh"
    path.write_text('#!/bin/bash\n[[ $SENTINEL_OF_THE_PARENT == here ]] && touch "$1/rank-$RANK"\n')
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    elastic_launch(on_etcd(server, 1, 1, 4), str(path))(folder)
    assert ran(folder) == {"train.sh", "rank-0", "rank-1", "rank-2", "rank-3"}


def test_a_line_begins_as_torchruns_variable_wants_it(
    server: EtcdServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("TORCHELASTIC_LOG_LINE_PREFIX_TEMPLATE", "[rank${rank}, $user's]: ")
    config = on_etcd(server, 1, 1, 2, tee=Std.ALL, log_dir=str(tmp_path))
    elastic_launch(config, "bash")("-c", "echo creating >&$((1 + RANK))")
    out, err = capfd.readouterr()
    assert "[rank0, $user's]: creating\n" in out
    assert "[rank1, $user's]: creating\n" in err


def test_a_function_and_what_its_ranks_return(server: EtcdServer) -> None:
    found = elastic_launch(on_etcd(server, 1, 1, 4), worker_functions.rank_and)(10)
    assert found == {rank: (rank, 10) for rank in range(4)}


def test_a_sum_over_all_ranks_of_a_static_rendezvous() -> None:
    (port,) = free_ports(1)
    config = LaunchConfig(
        1,
        1,
        4,
        rdzv_backend="static",
        rdzv_endpoint=f"127.0.0.1:{port}",
        rdzv_configs={"rank": 0},
        start_method="fork",
    )
    found = elastic_launch(config, collective_functions.all_reduce)()
    assert found == {rank: (rank, 4, 1111.0) for rank in range(4)}


def test_ranks_may_meet_by_an_address_of_their_own_making(server: EtcdServer) -> None:
    config = on_etcd(server, 1, 1, 2, start_method="fork")
    assert elastic_launch(config, collective_functions.meet_over_tcp)() == {
        0: (True, 2),
        1: (True, 2),
    }


def test_one_node_of_a_range_of_one_to_two_starts_alone(
    server: EtcdServer, script: str, folder: str
) -> None:
    found = elastic_launch(on_etcd(server, 1, 2, 2), script)(folder)
    assert (found, ran(folder)) == ({0: None, 1: None}, {"0", "1"})


def test_several_agents_share_the_ranks(pair: NodePair, script: str, folder: str) -> None:
    env = {name: os.environ[name] for name in (MARK, "TMPDIR", "SENTINEL_OF_THE_PARENT")}
    first, second = pair.launch(
        script, folder, seconds=60, env=env, min_nodes=1, max_nodes=2, nproc_per_node=4
    )
    assert (first.kind, second.kind) == ("values", "values"), (first.text, second.text)
    assert first.values | second.values == dict.fromkeys(range(8))
    assert ran(folder) == {str(rank) for rank in range(8)}


@pytest.mark.usefixtures("events_logger")
def test_a_worker_that_raises_is_torchs_error_for_failed_children_and_recorded_once(
    server: EtcdServer, script: str, folder: str, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(ChildFailedError, match="--fail was given"):
        elastic_launch(on_etcd(server, 1, 2, 4), script)(folder, "--fail")
    assert ends_of_the_agent(caplog) == ["SUCCEEDED"], "the agent has done its work"


@pytest.mark.usefixtures("events_logger")
def test_an_error_of_the_agent_reaches_the_caller_and_is_recorded_once(
    server: EtcdServer, caplog: pytest.LogCaptureFixture
) -> None:
    """The other node never comes. On a busy machine etcd may not be heard in time either, which is
    another rendezvous error.
    """
    config = on_etcd(server, 2, 2, 1, rdzv_configs={"timeout": 1})
    with pytest.raises(RendezvousError):
        elastic_launch(config, worker_functions.rank_and)(0)
    assert ends_of_the_agent(caplog) == ["FAILED"]


@pytest.fixture
def events_logger() -> None:
    """torch makes the logger of its events with the first one. It hands on nothing to others, and
    pytest only listens to such a logger if it is there before the test begins.
    """
    logging.getLogger("torchelastic-events-null").propagate = False


def ends_of_the_agent(caplog: pytest.LogCaptureFixture) -> list[str]:
    """How the agent ended, as torch elastic's events tell, which go to a logger of their own."""
    texts = [
        record.getMessage()
        for record in caplog.records
        if record.name.startswith("torchelastic-events")
    ]
    told = [event for event in map(json.loads, texts) if event["source"] == "AGENT"]
    states = [event["name"].rpartition(".")[2] for event in told]
    return [state for state in states if state in ("SUCCEEDED", "FAILED")]


@pytest.fixture
def store() -> TCPStore:
    """A store that outlives the agents of the test, as on a host of its own."""
    return TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)


def through(store: TCPStore) -> LaunchConfig:
    return LaunchConfig(
        1,
        1,
        1,
        run_id="once",
        rdzv_backend="c10d",
        rdzv_endpoint=f"127.0.0.1:{store.port}",
        # torch counts a node that says nothing for so long as gone.
        rdzv_configs={"is_host": False, "keep_alive_interval": 1, "keep_alive_max_attempt": 2},
        max_restarts=0,
        shutdown_timeout=5,
    )


def test_an_error_closes_torchs_rendezvous_for_good(store: TCPStore) -> None:
    with pytest.raises(ChildFailedError):
        elastic_launch(through(store), worker_functions.end)("raise")
    with pytest.raises(RendezvousError, match="RendezvousClosedError"):
        elastic_launch(through(store), worker_functions.rank_and)(0)


@pytest.mark.fault
@pytest.mark.parametrize("number", [SIGTERM, SIGINT])
def test_a_signal_leaves_torchs_rendezvous_open(
    store: TCPStore, number: Signals, folder: str
) -> None:
    stopped(number, folder, through(store))
    assert elastic_launch(through(store), worker_functions.rank_and)(0) == {0: (0, 0)}


@pytest.mark.fault
def test_on_etcd_an_error_is_the_runs_end_and_a_signal_only_this_nodes(
    server: EtcdServer, folder: str
) -> None:
    before = len(read_history(server).markers)
    stopped(SIGTERM, folder, on_etcd(server, 1, 1, 1, run_id="left"))
    left = [one.cause.name for one in read_history(server).markers[before:]]
    with pytest.raises(ChildFailedError):
        elastic_launch(on_etcd(server, 1, 1, 1, run_id="ended"), worker_functions.end)("raise")
    ended = [one.cause.name for one in read_history(server).markers[before + len(left) :]]
    assert (left, ended) == (["LEFT"], ["FAILED"])


def stopped(number: Signals, folder: str, config: LaunchConfig) -> None:
    """A node whose agent, a process of its own, gets a signal while its worker runs."""
    agent = fork()
    if agent == 0:
        try:
            elastic_launch(config, worker_functions.sleep)(folder)
        except SignalException as stop:
            os._exit(int(stop.sigval is not number))
        finally:
            os._exit(2)
    try:
        assert wait_until(Path(folder, "running-0").exists, 60)
    finally:
        os.kill(agent, number)
        assert os.waitpid(agent, 0)[1] == 0
