"""What is said of processes where ``/proc`` shows nothing but processes (``ProcSubset=pid``)."""

from __future__ import annotations

import os
import subprocess
import sys
from types import SimpleNamespace

import pytest

from llutil.system import kill_all, process_table

_CODE = """
import os, subprocess, time
from llutil.system.addresses import machine_id
from llutil.system.job_mark import MARK_VARIABLE
from llutil.system.kill_all import kill_all
from llutil.system.process_table import (
    Moment, newest_number, numbers_are_the_kernels, stat_of
)
assert not any(os.path.exists(f"/proc/{name}") for name in ("loadavg", "stat", "sys"))
moment = Moment()
assert (newest_number(), numbers_are_the_kernels(), moment.newer()) == (0, False, None)
assert machine_id() == machine_id()
session = subprocess.Popen(["sh", "-c", "sleep 60 & sleep 60"], start_new_session=True)
marked = subprocess.Popen(
    ["sleep", "60"], env={**os.environ, MARK_VARIABLE: "it"}, start_new_session=True
)
sessions = {session.pid: stat_of(session.pid).start}
left = kill_all(sessions, "it", time.monotonic() + 20, since=moment)
print(session.wait(20), marked.wait(20), str(left) == "")
"""


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A clock that moves by what is slept. All processes are in the midst of starting a program."""
    clock = SimpleNamespace(now=0.0, monotonic=lambda: clock.now)

    def sleep(seconds: float) -> None:
        clock.now += seconds

    clock.sleep = sleep
    for module in (process_table, kill_all):
        monkeypatch.setattr(module, "time", clock)
    monkeypatch.setattr(process_table, "_starts_a_program", lambda _: True)
    return clock


@pytest.mark.parametrize(("seconds", "found"), [(4.0, b"MARK=1"), (60.0, None)])
def test_a_process_that_stalls_while_it_starts_a_program_is_waited_for(
    seconds: float, found: bytes | None, clock: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:

    def shown(_: int) -> bytes:
        return b"MARK=1" if clock.now >= seconds else b""

    monkeypatch.setattr(process_table, "_environment", shown)
    assert process_table.environment_has(1, (b"MARK=1",), until=5.0) == found


def test_many_that_are_stuck_in_the_same_place_are_waited_for_together(
    clock: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where the file system of the program does not answer."""
    monkeypatch.setattr(process_table, "_environment", lambda _: b"")
    stat = process_table.stat_of(os.getpid())
    assert stat is not None
    assert kill_all.marked_processes([stat] * 99, "it") == (set(), set())
    assert process_table.EXEC_LONGEST <= clock.now < process_table.EXEC_LONGEST + 0.1


def test_all_of_a_job_is_found_where_proc_shows_only_processes() -> None:
    namespaces = ["--mount", "--pid", "--fork"]
    namespaces += [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    mount = 'mount -t proc -o subset=pid proc /proc && exec "$0" -c "$1"'
    done = subprocess.run(
        ["unshare", *namespaces, "sh", "-c", mount, sys.executable, _CODE],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("-9 -9 True\n", "")
