"""Stacks are taken from processes: by py-spy, by a signal, or it is said why there are none."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest

from llutil.agent.hang import take_stacks
from llutil.agent.hang.take_stacks import stacks_of
from llutil.agent.worker_side.stack_signal import STACK_SIGNAL
from tests.support.launches import wait_until

OFFERS = """
import sys, threading
from llutil.agent.worker_side.stack_signal import offer_stacks
offer_stacks()
def sleeps():
    print("ready", flush=True)
    threading.Event().wait()
sleeps()
"""
PLAIN = "import sys; print('ready', flush=True); sys.stdin.read()"
SPY = """#!/bin/sh
test "$4" = {pid} || exit 1
cat << END
Process $4: train.py --password=secret
Python v3.11.7 (python3)

Thread $4 (idle): "MainThread"
    spied (/home/user/train.py:7)
END
"""


def _wait(until: float) -> None:
    time.sleep(max(0.0, until - time.monotonic()))


@contextmanager
def process(code: str) -> Iterator[int]:
    """A process that runs ``code`` and has printed that it is ready."""
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"ready\n"
        try:
            yield child.pid
        finally:
            child.kill()


@pytest.fixture(autouse=True)
def _no_py_spy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(take_stacks, "_py_spy", lambda: None)
    monkeypatch.setattr(take_stacks, "_SIGNAL_TIME", 60.0)  # for a machine that stalls


def test_a_process_that_offers_its_stacks_is_asked_by_a_signal_as_often_as_wanted() -> None:
    with process(OFFERS) as pid:
        for _ in range(2):
            taken = stacks_of([pid], _wait)[pid]
            assert taken.stack is not None
            functions = [frame.function for frame in taken.stack.main]
            assert functions[-2:] == ["sleeps", "<module>"]
            assert taken.text.count("<module>") == 1


def test_a_process_that_handles_no_such_signal_gets_none_and_lives_on() -> None:
    with process(PLAIN) as pid:
        taken = stacks_of([pid], _wait)[pid]
        assert taken.stack is None
        assert "no Python program that the launcher started" in taken.unknown
        status = Path(f"/proc/{pid}/status").read_text()
        pending = [int(line.split()[1], 16) for line in status.split("\n") if "Pnd:" in line]
        assert not any(mask >> (STACK_SIGNAL - 1) & 1 for mask in pending)


def test_a_process_that_is_stopped_delays_nobody_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = SimpleNamespace(now=0.0, monotonic=lambda: clock.now)
    monkeypatch.setattr(take_stacks, "time", clock)
    with process(OFFERS) as stopped, process(OFFERS) as other:
        os.kill(stopped, signal.SIGSTOP)
        assert wait_until(lambda: "T (stopped)" in Path(f"/proc/{stopped}/status").read_text())

        def wait(until: float) -> None:
            """Time passes once the other process has written its stack."""
            path = take_stacks._memory_file(other)
            assert path is not None
            assert wait_until(lambda: "<module>" in Path(path).read_text())
            clock.now = until

        taken = stacks_of([stopped, other], wait)
        assert taken[stopped].unknown == "it wrote none (it is stopped, as by signal 19)"
        assert taken[other].stack is not None


def test_a_process_that_has_ended_has_no_stack() -> None:
    with process(PLAIN) as pid:
        pass
    assert stacks_of([pid], _wait)[pid].unknown == "its process has ended"


def test_py_spy_is_asked_first_and_faulthandler_where_it_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with process(PLAIN) as spied, process(OFFERS) as refused:
        spy = tmp_path / "py-spy"
        spy.write_text(SPY.format(pid=spied))
        spy.chmod(0o755)
        monkeypatch.setattr(take_stacks, "_py_spy", lambda: str(spy))
        taken = stacks_of([spied, refused], _wait)
    one, other = taken[spied], taken[refused]
    assert one.stack is not None
    assert other.stack is not None
    assert [frame.function for frame in one.stack.main] == ["spied"]
    assert "secret" not in one.text
    assert other.stack.main[-1].function == "<module>"
