"""What is told and written once a job has ended well, beside a store that is slow."""

from __future__ import annotations

import logging
import signal
import threading
import time
from types import SimpleNamespace
from typing import Any

import pytest

from llutil.checkpoints.marker import Checkpoint
from llutil.launcher import job_end
from llutil.launcher.config import LaunchConfig
from llutil.launcher.job_end import tell_end

NEWEST = Checkpoint("/c/job/step-7", 7, 2)


class Played:
    """A job that has ended, its observer, and a store that answers when it is let."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, path: str | None = "/c") -> None:
        self.answers = threading.Event()
        self.asked: list[str] = []
        self.told: list[Any] = []
        self.agent: Any = SimpleNamespace(
            steering=SimpleNamespace(stopped=None),
            success_folder="/c/job",
            signals=SimpleNamespace(caught=None),
        )
        self.request: Any = SimpleNamespace(
            config=LaunchConfig(1, 1, 1, run_id="job", checkpoint_path=path),
            observer=SimpleNamespace(
                saved=lambda step, path: self.told.append((step, path)),
                stopped=lambda step, why: self.told.append((step, why)),
            ),
        )
        monkeypatch.setattr(job_end, "note_success", self.note)
        monkeypatch.setattr(job_end, "newest_checkpoint", self.newest)

    def note(self, folder: str, _life: str, goes_on: Any) -> None:
        self.answers.wait(30)
        self.asked.append(folder)
        goes_on()

    def newest(self, folder: str) -> Checkpoint:
        self.answers.wait(30)
        self.asked.append(f"newest in {folder}")
        return NEWEST

    def end(self) -> float:
        """Tell it; for how many seconds that took."""
        began = time.monotonic()
        tell_end(self.agent, self.request, "job")
        return time.monotonic() - began


def threads() -> list[threading.Thread]:
    return [one for one in threading.enumerate() if one.name == "llutil-job-end"]


@pytest.fixture
def played(monkeypatch: pytest.MonkeyPatch) -> Played:
    return Played(monkeypatch)


def test_a_success_is_noted_and_the_newest_checkpoint_is_told(played: Played) -> None:
    played.answers.set()
    played.end()
    assert played.asked == ["/c/job", "newest in /c/job"]
    assert played.told == [(7, "/c/job/step-7")]
    assert threads() == []


def test_a_job_that_was_stopped_has_not_succeeded(played: Played) -> None:
    played.agent.steering.stopped = SimpleNamespace(step=7, why="a person")
    played.answers.set()
    played.end()
    assert played.asked == ["newest in /c/job"]
    assert played.told == [(7, "a person"), (7, "/c/job/step-7")]


def test_without_a_folder_there_is_no_store_to_wait_for(monkeypatch: pytest.MonkeyPatch) -> None:
    played = Played(monkeypatch, path=None)
    played.end()
    assert (played.asked, played.told, threads()) == ([], [], [])


@pytest.mark.parametrize("ends_by", ["its patience", "a stop"])
def test_a_store_that_does_not_answer_is_given_up_and_asked_for_nothing_more(
    played: Played,
    ends_by: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    if ends_by == "a stop":
        monkeypatch.setattr(job_end, "SUCCESS_NOTED", 0.1)
        played.agent.signals.caught = signal.SIGTERM
    else:
        monkeypatch.setattr(job_end, "_PATIENCE", 0.1)
    with caplog.at_level(logging.WARNING):
        assert played.end() < 20
    (told,) = caplog.messages
    assert "'/c/job' does not answer" in told
    played.answers.set()
    for thread in threads():
        thread.join(20)
    assert (played.asked, played.told) == (["/c/job"], [])


def test_what_nobody_foresaw_is_raised(played: Played, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise RuntimeError("a fault")

    monkeypatch.setattr(job_end, "note_success", fail)
    with pytest.raises(RuntimeError, match="a fault"):
        played.end()
