"""What nodes with agents of torch's own hear of each other: successes, failures, and who leaves."""

from __future__ import annotations

import gc
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from torch.distributed import DistNetworkError
from torch.distributed.elastic.agent.server.api import RunResult, WorkerSpec
from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.elastic.rendezvous import RendezvousClosedError
from torch.distributed.launcher import api

from llutil.rendezvous.protocol.records import Stage
from tests.support.memory_rendezvous import RUN
from tests.support.torch_agents import TorchJob, TorchNode, until

NNODES = pytest.mark.parametrize("nnodes", [(1, 2), (2, 2)], ids=["1:2", "2:2"])
FIRST = pytest.mark.parametrize("first", [0, 1], ids=["leader", "follower"])
"""Which of two nodes is the first to end."""


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[TorchJob]:
    gc.collect()
    threads = set(threading.enumerate())
    with TorchJob(tmp_path, monkeypatch).open() as job:
        yield job
    gc.collect()
    for thread in set(threading.enumerate()) - threads:
        thread.join(10)  # a handler that was dropped in another thread waits for nothing
        assert not thread.is_alive()
    assert job.members() == []
    job.ledger.close()
    assert not job.store.ledgers


@NNODES
@FIRST
def test_who_leaves_after_a_success_ends_nobodys_workers(
    job: TorchJob, nnodes: tuple[int, int], first: int
) -> None:
    nodes = job.nodes_of("ab", nnodes)
    early, late = nodes[first], nodes[1 - first]
    early.succeeds()
    assert early.agent_ended.wait(20)  # its barrier of 0.1 s is over
    assert late.runs_on()
    late.succeeds()
    assert [node.ends().values for node in nodes] == [{0: 0}, {1: 1}]
    assert job.marker()["cause"] == "succeeded"


def test_who_serves_the_rounds_store_stays_for_as_long_as_others_need_it(job: TorchJob) -> None:
    leader, other = job.nodes_of("ab", (1, 2))
    leader.succeeds()
    assert leader.agent_ended.wait(20)
    assert other.runs_on()
    assert leader.thread.is_alive()
    assert job.members() == ["a", "b"]
    other.succeeds()
    leader.ends()


def test_who_serves_nothing_leaves_as_soon_as_its_success_is_known(job: TorchJob) -> None:
    leader, other = job.nodes_of("ab", (1, 2))
    other.barrier = 20.0
    other.succeeds()
    until(lambda: job.members() == ["a"])
    assert leader.runs_on()
    leader.succeeds()
    assert [node.ends().values for node in (leader, other)] == [{0: 0}, {1: 1}]


@NNODES
@FIRST
def test_the_others_end_with_the_cause_of_a_failure_for_good(
    job: TorchJob, nnodes: tuple[int, int], first: int
) -> None:
    nodes = job.nodes_of("ab", nnodes)
    failed, other = nodes[first], nodes[1 - first]
    failed.fails("ValueError: no luck")
    failed.ends_with(ChildFailedError)
    text = other.ends_with(RendezvousClosedError)
    assert f"rank {first}: ValueError: no luck" in text
    assert "Traceback ..." in text
    assert job.marker()["cause"] == "failed"


def test_a_failure_for_good_counts_though_an_echo_of_it_was_told_first(job: TorchJob) -> None:
    failed, other = job.nodes_of("ab", (1, 2), restarts=[0, 1])
    failed.fails("ValueError: no luck")
    fails, reports = failed.result, RUN.reports(Stage(1, 1))
    assert fails is not None

    def fails_late(rank: int) -> RunResult:
        until(lambda: any(key.endswith("/back.b.1") for key in job.keys(reports)))
        return fails(rank)

    failed.result = fails_late
    other.fails("Connection closed by peer")
    failed.ends_with(ChildFailedError)
    assert "ValueError: no luck" in other.ends_with(RendezvousClosedError)


@NNODES
def test_who_has_succeeded_does_not_wait_for_one_that_failed_for_good(
    job: TorchJob, nnodes: tuple[int, int]
) -> None:
    for first in (0, 1):
        nodes = job.nodes_of("ab", nnodes)
        failed, done = nodes[first], nodes[1 - first]
        done.barrier = 300.0
        done.succeeds()
        assert done.at_barrier.wait(20)
        failed.fails("ValueError: no luck")
        failed.ends_with(ChildFailedError)
        assert done.ends().values == {1 - first: 1 - first}


def test_an_agent_that_returns_a_failure_without_raising_it_ends_the_others_too(
    job: TorchJob,
) -> None:
    def launch(node: TorchNode) -> dict[int, object]:
        handler = job.handler(node.name, 2, 2)
        spec = WorkerSpec(
            "worker", 1, handler, entrypoint="train", max_restarts=0, monitor_interval=0.01
        )
        try:
            return job.agent(spec).run().return_values
        finally:
            assert handler.shutdown()

    job.launch = launch
    failed, other = job.nodes_of("ab", (2, 2))
    failed.fails("ValueError: no luck")
    assert failed.ends().error is None
    assert "its workers failed" in other.ends_with(RendezvousClosedError)


def test_an_agent_that_cannot_start_its_workers_tells_the_others_why(job: TorchJob) -> None:
    broken, other = job.nodes_of("ab", (1, 2))
    broken.breaks(FileNotFoundError("no train.py here"))
    broken.ends_with(FileNotFoundError)
    text = other.ends_with(RendezvousClosedError)
    assert "its agent ended with FileNotFoundError: no train.py here" in text


@FIRST
@pytest.mark.parametrize(
    "error", [SignalException("preempted", signal.SIGTERM), DistNetworkError("no route")]
)
def test_a_node_that_is_gone_for_itself_alone_lets_the_others_start_again(
    job: TorchJob, first: int, error: Exception
) -> None:
    nodes = job.nodes_of("ab", (1, 2))
    gone, other = nodes[first], nodes[1 - first]
    gone.breaks(error)
    gone.ends_with(type(error))
    assert other.starts() == 1
    other.succeeds()
    assert other.ends().values == {0: 0}


def test_a_signal_after_a_success_ends_nobodys_workers(job: TorchJob) -> None:
    done, other = job.nodes_of("ab", (1, 2))
    done.in_barrier = SignalException("preempted", signal.SIGTERM)
    done.succeeds()
    done.ends_with(SignalException)
    assert other.runs_on()
    other.succeeds()
    assert other.ends().values == {1: 1}


@FIRST
def test_who_fails_after_another_has_succeeded_starts_again_if_it_may_alone(
    job: TorchJob, first: int
) -> None:
    nodes = job.nodes_of("ab", (1, 2), restarts=[1, 1])
    done, other = nodes[first], nodes[1 - first]
    done.barrier = 300.0
    done.succeeds()
    assert done.at_barrier.wait(20)
    other.fails("ValueError: no luck")
    assert done.ends().values == {first: first}
    assert other.starts() == 1
    other.succeeds()
    assert other.ends().values == {0: 0}


@FIRST
def test_who_fails_after_another_has_succeeded_ends_soon_if_it_may_not_start_alone(
    job: TorchJob, first: int
) -> None:
    nodes = job.nodes_of("ab", (2, 2), restarts=[1, 1])
    done, other = nodes[first], nodes[1 - first]
    done.succeeds()
    assert done.at_barrier.wait(20)
    other.fails("ValueError: no luck")
    text = other.ends_with(RendezvousClosedError)
    assert "had succeeded, and so 1 of 2 nodes are left for another round" in text
    assert done.ends().values == {first: first}


def test_a_node_that_comes_while_others_finish_ends_nobodys_workers(job: TorchJob) -> None:
    other, done = job.nodes_of("ab", (2, 3), last_call=0.0)
    done.succeeds()
    until(lambda: job.members() == ["a"])
    late = job.node("c")
    until(lambda: job.members() == ["a", "c"])
    assert other.runs_on()
    other.succeeds()
    assert other.ends().values == {0: 0}
    assert "the job succeeded while this node waited" in late.ends_with(RendezvousClosedError)


def test_an_error_that_is_handled_around_a_launch_is_not_taken_for_its_end(job: TorchJob) -> None:
    def again(node: TorchNode) -> dict[int, object]:
        try:
            raise OSError("the first try")
        except OSError:
            return api.launch_agent(node.config, "train", [])

    job.launch = again
    leader, other = job.nodes_of("ab", (1, 2))
    other.succeeds()
    until(lambda: job.members() == ["a"])
    assert leader.runs_on()
    leader.succeeds()
    assert [node.ends().values for node in (leader, other)] == [{0: 0}, {1: 1}]
