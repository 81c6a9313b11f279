"""A job that is stopped while its store does not answer still tells how it ended."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from llutil.failure import FailureClass
from llutil.task_link import messages
from llutil.time_budgets import StopBudget
from tests.support.etcd_servers import EtcdServer, etcd
from tests.support.fake_task import FakeTask, spec, worker_function
from tests.support.launches import wait_until

pytestmark = [pytest.mark.launch, pytest.mark.fault, pytest.mark.usefixtures("warm_agents")]

GRACE_PERIOD = 7.5
SAVING = 4.0
"""Seconds that a rank takes to save: nearly all that it has, on a machine that stalls."""


@pytest.fixture
def server() -> Iterator[EtcdServer]:
    with etcd() as server:
        yield server


@pytest.mark.parametrize("lease_ttl", [10, 60])
def test_ranks_that_need_their_whole_grace_period_beside_a_store_that_is_away_are_a_told_stop(
    folder: str, server: EtcdServer, lease_ttl: int
) -> None:
    job = spec(
        worker_function("save_when_stopped", folder, SAVING),
        folder,
        grace=GRACE_PERIOD,
        max_nodes=2,
        rdzv_backend="etcd",
        rdzv_endpoint=str(server.endpoint),
        rdzv_configs={"last_call_timeout": 0.1, "lease_ttl": lease_ttl},
    )
    budget = StopBudget(GRACE_PERIOD)
    with FakeTask(job) as task:
        assert wait_until(Path(folder, "running-0").exists, 60)
        with server.frozen():
            began = time.monotonic()
            task.tell(messages.Stop("enough"))
            stopped = task.verdict()
            took = time.monotonic() - began
    assert (stopped.error, stopped.job_failure.failure_class) == (
        "StoppedError",
        FailureClass.PREEMPTION,
    )
    assert stopped.report == "the job was stopped: enough"
    assert SAVING < took < budget.agent
    assert Path(folder, "saved-0").exists()
