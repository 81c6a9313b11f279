"""What is said of processes where ``/proc`` shows nothing but processes (``ProcSubset=pid``)."""

from __future__ import annotations

import os
import subprocess
import sys

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
