"""Turns of a task instance's tries on one host: one at a time, and nobody waits for ever."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from airflow_provider.turn import Turn


class Attempt:
    """A try that takes its turn; something happens while it sleeps, and its sleeps are counted."""

    def __init__(self, folder, slug="job"):
        self.turn = Turn(folder, slug)
        self.said = []
        self.sleeps = 0
        self.stopped = False

    def take(self, patience=10.0, meanwhile=lambda: None):
        def sleep(seconds):
            assert seconds > 0
            self.sleeps += 1
            meanwhile()

        return self.turn.take(
            patience, say=self.said.append, sleep=sleep, stopped=lambda: self.stopped
        )

    def stop(self):
        self.stopped = True


@pytest.fixture
def first(tmp_path):
    attempt = Attempt(tmp_path)
    assert attempt.take()
    return attempt


def test_a_first_try_waits_for_nobody_and_leaves_nothing(first, tmp_path):
    assert (first.said, first.sleeps) == ([], 0)
    first.turn.close()
    assert list(tmp_path.iterdir()) == []


def test_a_next_try_waits_until_the_earlier_one_has_ended(first, tmp_path):
    first.turn.note(os.getpid())
    second = Attempt(tmp_path)
    assert second.take(meanwhile=first.turn.close)
    assert second.sleeps == 1
    assert "is still at work on this host" in second.said[0]
    assert f"its agent is process {os.getpid()}" in second.said[0]
    assert "10 s at most" in second.said[0]


def test_tries_of_other_task_instances_do_not_wait_for_each_other(first, tmp_path):
    other = Attempt(tmp_path, "another")
    assert other.take()
    assert other.sleeps == 0


def test_an_agent_that_outlives_its_task_has_the_turn(first, tmp_path):
    first.turn.note(os.getpid())
    agents = os.dup(first.turn.fd)
    first.turn.close()
    second = Attempt(tmp_path)
    assert second.take(meanwhile=lambda: os.close(agents))
    assert second.sleeps == 1


def test_a_stop_ends_the_waiting(first, tmp_path):
    second = Attempt(tmp_path)
    assert not second.take(meanwhile=second.stop)
    assert second.sleeps == 1
    second.turn.close()  # takes nothing away from who has it
    third = Attempt(tmp_path)
    assert not third.take(meanwhile=third.stop)


def test_a_turn_whose_file_was_removed_meanwhile_is_taken_at_the_new_one(first, tmp_path):
    second = Attempt(tmp_path)
    assert second.take(meanwhile=first.turn.close)
    third = Attempt(tmp_path)
    assert not third.take(meanwhile=third.stop)
    assert third.sleeps == 1


def holder(folder):
    """A process that has the turn, and leaves word that it is task and agent in one."""
    code = (
        "import os, pathlib, sys, time; from airflow_provider.turn import Turn; "
        f"turn = Turn(pathlib.Path({str(folder)!r}), 'job'); "
        "turn.take(0, say=print, sleep=time.sleep, stopped=bool); turn.note(os.getpid()); "
        "print('mine', flush=True); time.sleep(600)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    assert process.stdout.readline() == "mine\n"
    return process


def test_who_is_at_work_for_too_long_is_killed(tmp_path):
    with holder(tmp_path) as process:
        second = Attempt(tmp_path)
        assert second.take(patience=0.0, meanwhile=lambda: process.wait(30))
        assert process.returncode == -signal.SIGKILL
    assert "SIGKILL" in second.said[-1]


def test_a_process_that_only_has_the_number_of_who_was_at_work_is_not_killed(tmp_path, first):
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as stranger:
        os.ftruncate(first.turn.fd, 0)
        os.pwrite(first.turn.fd, b'[[%d, "1"], [%d, "1"]]' % (stranger.pid, stranger.pid), 0)
        second = Attempt(tmp_path)
        assert second.take(patience=0.0, meanwhile=first.turn.close)
        assert "process" not in second.said[0]
        assert stranger.poll() is None
        stranger.communicate(b"\n", timeout=30)
        assert stranger.returncode == 0
