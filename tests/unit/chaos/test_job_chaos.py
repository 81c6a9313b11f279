"""What an agent says and hands on of the faults of its job."""

from __future__ import annotations

import logging
import os
import tempfile
from pathlib import Path
from typing import Any

import pytest

from llutil.chaos import cut, hang, kill
from llutil.chaos.faults import Fault
from llutil.chaos.job_chaos import JobChaos
from llutil.chaos.journal import JOURNAL
from llutil.chaos.memory import note
from llutil.chaos.rank_faults import rank_faults
from llutil.checkpoints.place import LIFE
from llutil.launcher.config import LaunchConfig


@pytest.fixture(autouse=True)
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    for name in (JOURNAL, LIFE):
        monkeypatch.delenv(name, raising=False)


def chaos(*faults: Fault, folder: str = "", **config: Any) -> JobChaos:
    return JobChaos(LaunchConfig(1, 2, 2, chaos=faults, **config), "run", folder)


def test_a_job_without_faults_tells_its_ranks_nothing(caplog: pytest.LogCaptureFixture) -> None:
    assert chaos().environment() == {}
    assert not caplog.records
    chaos().forget()


def test_faults_are_said_loudly_and_handed_on(caplog: pytest.LogCaptureFixture) -> None:
    told = rank_faults(chaos(kill(rank=1, step=5), cut(node=0, seconds=2)).environment())
    assert told.faults == (kill(rank=1, step=5), cut(node=0, seconds=2))
    assert told.agent == os.getpid()
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "CHAOS: 2 faults strike this job on purpose: kill(rank=1, step=5), cut" in record.message
    assert told.memory in record.message


def test_a_rank_that_will_never_be_found_hanging_is_said(caplog: pytest.LogCaptureFixture) -> None:
    chaos(hang(rank=0, step=1)).environment()
    assert len(caplog.records) == 1
    chaos(hang(rank=0, step=1), hang_timeout=None).environment()
    assert "nobody will find the rank that hangs" in caplog.records[-1].message


def test_a_job_whose_steps_are_written_down_has_such_ranks_without_faults_too(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv(JOURNAL, "/journal")
    assert rank_faults(chaos().environment()).faults == ()
    assert not caplog.records


def test_only_a_cut_needs_the_agent() -> None:
    assert chaos(cut(node=0, seconds=1)).cuts
    assert not chaos(kill(rank=0, step=1)).cuts


def memory(of: JobChaos) -> str:
    return rank_faults(of.environment()).memory


def test_a_success_begins_a_new_life(tmp_path: Path) -> None:
    for folder in ("", str(tmp_path / "c")):
        one = chaos(kill(rank=0, step=1), folder=folder)
        assert note(memory(one), "kill")
        assert not note(memory(one), "kill")
        one.forget()
        assert note(memory(one), "kill")


def test_a_run_that_nobody_knows_leaves_nothing_on_the_host_but_what_lies_beside_checkpoints(
    tmp_path: Path,
) -> None:
    for folder in ("", str(tmp_path / "c")):
        one = chaos(kill(rank=0, step=1), folder=folder)
        note(memory(one), "kill")
        one.leave()
        assert note(memory(one), "kill") == (not folder)


def test_a_life_with_a_name_outlasts_a_success(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(LIFE, "1@noon")
    one = chaos(kill(rank=0, step=1), folder=str(tmp_path / "c"))
    assert note(memory(one), "kill")
    one.forget()
    assert not note(memory(one), "kill")
    monkeypatch.setenv(LIFE, "2@noon")
    assert note(memory(chaos(kill(rank=0, step=1), folder=str(tmp_path / "c"))), "kill")


def test_tries_that_share_a_name_share_what_has_struck() -> None:
    config = LaunchConfig(1, 1, 1, chaos=kill(rank=0, step=1), checkpoint_job="task")
    assert memory(JobChaos(config, "try-1", "")) == memory(JobChaos(config, "try-2", ""))
    other = LaunchConfig(1, 1, 1, chaos=kill(rank=0, step=1))
    assert memory(JobChaos(other, "a", "")) != memory(JobChaos(other, "b", ""))
