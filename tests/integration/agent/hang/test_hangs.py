"""Ranks that hang are found, named and started again; others are left alone."""

from __future__ import annotations

import logging
import os
import re
from pathlib import Path

import pytest
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

from llutil.agent.failures.report import WorkersFailed
from llutil.agent.hang import take_stacks
from llutil.failure import FailureClass
from tests.integration.agent.hang import hanging_functions as functions
from tests.support.etcd_servers import EtcdServer
from tests.support.launches import hide_torch, launch
from tests.support.leftovers import MARK
from tests.support.node_pair import NodePair
from tests.support.torch_forks import TorchForks

pytestmark = pytest.mark.launch

TIMEOUT = 1.5  # seconds


@pytest.fixture(autouse=True)
def _no_py_spy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stacks come from faulthandler on every machine, also if a rank takes long to write them."""
    monkeypatch.setattr(take_stacks, "_py_spy", lambda: None)
    monkeypatch.setattr(take_stacks, "_SIGNAL_TIME", 60.0)


def test_the_rank_in_a_lock_is_named_and_the_job_starts_again_and_succeeds(
    folder: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "llutil")
    found = launch(functions.train, folder, nproc=2, hang_timeout=TIMEOUT, max_restarts=1)
    assert found == {0: 1, 1: 1}
    said = caplog.text
    # On a busy machine it may be rank 0, which waits for rank 1, whose time is over first.
    assert re.search("rank 1: (it has made step 2 and|rank 0 has) reported nothing for", said)
    assert "others wait for it in all_reduce" in said
    assert said.count("stacks of rank") == 2
    assert "in take_lock_twice" in said
    assert "in wait" in said
    assert "rank 1 failed (RankHangsError" in said


def test_the_report_of_a_hang_has_its_class_and_the_stacks_of_all_ranks(folder: str) -> None:
    with pytest.raises(WorkersFailed) as raised:
        launch(functions.train, folder, nproc=2, hang_timeout=TIMEOUT, start_method="fork")
    failure = raised.value.failure
    assert failure is not None
    assert (failure.rank, failure.failure_class) == (1, FailureClass.HANG)
    assert failure.trace.startswith("rank 1 (step 2, pid ")
    assert "in take_lock_twice" in failure.trace
    assert "rank 0 (step 2, pid " in failure.trace
    assert "in all_reduce" in failure.trace
    assert "worker_main" not in failure.trace


def test_a_function_that_hangs_after_its_last_step_is_found() -> None:
    with pytest.raises(ChildFailedError, match="has made step 1 and reported nothing") as raised:
        launch(functions.hangs_while_its_model_is_dropped, hang_timeout=TIMEOUT)
    assert "in __del__" in str(raised.value)


def test_a_rank_that_is_stopped_or_held_and_goes_on_is_left_alone() -> None:
    found = launch(functions.is_stopped_and_held_for, 1.3 * TIMEOUT, hang_timeout=TIMEOUT)
    assert found == {0: "went on"}


def test_a_rank_that_never_reports_is_left_alone() -> None:
    found = launch(functions.never_reports, 1.3 * TIMEOUT, hang_timeout=TIMEOUT)
    assert found == {0: "went well"}


@pytest.mark.etcd
def test_on_two_nodes_the_one_whose_rank_hangs_is_named_on_both(
    tmp_path: Path, folder: str, shared_etcd: EtcdServer, torch_forks: TorchForks
) -> None:
    hide_torch(tmp_path)
    pair = NodePair(torch_forks, tmp_path, str(shared_etcd.endpoint))
    try:
        first, second = pair.launch(
            f"{functions.__name__}:train",
            folder,
            seconds=60.0,
            env={name: os.environ[name] for name in (MARK, "TMPDIR")}
            | {"PYTHONPATH": str(tmp_path)},
            hang_timeout=TIMEOUT,
            start_method="spawn",
        )
    finally:
        pair.close()
    for end in (first, second):
        assert end.kind == "WorkersFailed"
        assert "rank 1: RankHangsError: it has made step 2" in end.text, end.text
        assert "in take_lock_twice" in end.text
