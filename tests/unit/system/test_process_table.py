"""What is said of processes where ``/proc`` shows nothing but processes (``ProcSubset=pid``)."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from llutil.system import process_table

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


@pytest.mark.parametrize(("seconds", "found"), [(4.0, b"MARK=1"), (60.0, None)])
def test_a_process_that_stalls_while_it_starts_a_program_is_waited_for_some_seconds(
    seconds: float, found: bytes | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]

    class Clock:
        monotonic = staticmethod(lambda: now[0])

        @staticmethod
        def sleep(period: float) -> None:
            now[0] += period

    monkeypatch.setattr(process_table, "time", Clock)
    monkeypatch.setattr(process_table, "_starts_a_program", lambda _: True)
    shown = lambda _: b"MARK=1" if now[0] >= seconds else b""  # noqa: E731 - as short as the others
    monkeypatch.setattr(process_table, "_environment", shown)
    assert process_table.environment_has(1, (b"MARK=1",)) == found


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
