"""An agent that is forked is one that was started afresh, as far as its code can see."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from llutil.system.job_mark import MARK_VARIABLE
from tests.support.agent_servers import Server, wait_for
from tests.support.forks import in_a_fork

_FACTS = """
import gc, json, locale, logging, os, resource, signal, sys, tempfile, threading, warnings
def text(name): return open("/proc/self/" + name, errors="replace").read()
status = [line for line in text("status").splitlines()
          if line.split(":")[0] in ("Umask", "Uid", "Gid", "Groups", "SigBlk", "SigIgn", "SigCgt",
                                    "SigPnd", "CapEff", "NoNewPrivs", "Cpus_allowed", "Threads")]
facts = {
    "argv": sys.argv,
    "cwd": os.getcwd(),
    "path": sys.path,
    "environment": dict(os.environ),
    "shown": sorted(filter(None, text("environ").split(chr(0)))),
    "streams": [os.readlink(f"/proc/self/fd/{fd}")[:5] for fd in ("0", "1", "2", sys.argv[1])],
    "all": [fd for fd in range(1000) if os.path.exists(f"/proc/self/fd/{fd}")],
    "leads": [os.getsid(0) == os.getpid(), os.getpgid(0) == os.getpid()],
    "handlers": [str(signal.getsignal(number)) for number in sorted(signal.valid_signals())],
    "wakes": signal.set_wakeup_fd(-1),
    "status": status,
    "limits": text("limits"),
    "scheduling": [os.nice(0), os.sched_getscheduler(0), text("oom_score_adj")],
    "main": [__name__, sys.modules["__main__"].__dict__ is globals()],
    "unbuffered": [sys.stdout.write_through, sys.stderr.write_through, sys.stdout.encoding],
    "python": [str(sys.flags), sys.warnoptions, sys._xoptions, sys.executable, sys.prefix],
    "logging": [str(logging.root.handlers), logging.root.level],
    "state": [gc.isenabled(), locale.setlocale(locale.LC_ALL), tempfile.gettempdir()],
    "threads": [threading.current_thread() is threading.main_thread(), threading.active_count(),
                threading.main_thread().native_id == os.getpid()],
    "timer": signal.getitimer(signal.ITIMER_REAL),
    "filters": len(warnings.filters),
}
os.write(int(sys.argv[1]), json.dumps(facts).encode())
print("printed")
print("told", file=sys.stderr)
sys.exit(7)
"""
_FRESH = "import os, sys; sys.path.append(sys.path.pop(0)); exec(os.environ['RUN'])"


@in_a_fork
def test_it_finds_what_a_fresh_interpreter_finds(server: Server, tmp_path: Path) -> None:
    env = {"MINE": "ä=b", MARK_VARIABLE: "m", "CUDA_VISIBLE_DEVICES": "3", "RUN": _FACTS}
    found: list[Any] = []
    for fresh in (True, False):
        read, write = os.pipe()
        out = (tmp_path / "out").open("wb")
        with out, os.fdopen(read) as facts:
            if fresh:
                process = subprocess.Popen(
                    [sys.executable, "-u", "-c", _FRESH, str(write), "-x"],
                    stdin=subprocess.DEVNULL,
                    stdout=out.fileno(),
                    stderr=out.fileno(),
                    pass_fds=(write,),
                    env={**server.env, **env},
                    cwd=tmp_path,
                    start_new_session=True,
                )
                os.close(write)
                status = process.wait()
            else:
                fds = {1: out.fileno(), 2: out.fileno(), write: write}
                options = {"env": env, "fds": fds, "cwd": str(tmp_path)}
                agent = server.fork(_FACTS, str(write), "-x", **options)
                os.close(write)
                status = wait_for(agent)
            assert (status, (tmp_path / "out").read_text()) == (7, "printed\ntold\n")
            found.append(json.load(facts))
    fresh_facts, forked_facts = found
    assert forked_facts == fresh_facts
    assert f"{MARK_VARIABLE}=m" in forked_facts["shown"]


def test_its_command_line_is_an_agents(server: Server, tmp_path: Path) -> None:
    told = tmp_path / "told"
    code = f"import sys; open({str(told)!r}, 'w').write(open('/proc/self/cmdline').read())"
    wait_for(server.fork(code, "--socket", "3"))
    words = told.read_text().split("\0")
    assert words[:6] == [sys.executable, "-u", "-m", "llutil", "--socket", "3"]
    assert not any(words[6:])


def test_folders_of_the_task_come_after_the_agents_own(server: Server, tmp_path: Path) -> None:
    code = f"import json, sys; json.dump(sys.path, open({str(tmp_path / 'told')!r}, 'w'))"
    wait_for(server.fork(code, sys_path=("/first", "/second")))
    found = json.loads((tmp_path / "told").read_text())
    assert found[-3:] == ["/first", "/second", ""]


def test_two_agents_draw_different_random_numbers_and_keys(
    idle_server: Server, tmp_path: Path
) -> None:
    idle_server.env["PYTHONSTARTUP"] = "random,numpy.random,multiprocessing.process"
    idle_server.env["OPENBLAS_NUM_THREADS"] = "1"  # or numpy would start threads
    idle_server.start()
    code = (
        "import json, random, sys, multiprocessing.process as p; "
        "import numpy.random as n; "
        "drawn = [random.random(), n.rand(), bytes(p.current_process().authkey).hex()]; "
        f"json.dump(drawn, open({str(tmp_path)!r} + '/' + sys.argv[1], 'w'))"
    )
    for name in ("a", "b"):
        wait_for(idle_server.fork(code, name))
    first, second = (json.loads((tmp_path / name).read_text()) for name in ("a", "b"))
    assert not set(first) & set(second)


@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("pass", 0),
        ("raise SystemExit", 0),
        ("raise SystemExit(3)", 3),
        ("raise SystemExit('why')", 1),
        ("raise ValueError", 1),
        ("import os; os.kill(os.getpid(), 9)", -9),
        ("import os; os.kill(os.getpid(), 15)", -15),
    ],
)
def test_its_exit_status_is_that_of_a_child(server: Server, code: str, status: int) -> None:
    with Path(os.devnull).open("wb") as null:
        assert wait_for(server.fork(code, fds={2: null.fileno()})) == status


def test_it_is_a_zombie_until_its_task_has_asked(server: Server) -> None:
    read, write = os.pipe()
    agent = server.fork("import os, sys; os.read(int(sys.argv[1]), 1)", str(read), fds={read: read})
    assert agent.poll() is None
    os.write(write, b"!")
    assert agent.poll() in {None, 0}
    for fd in (read, write):
        os.close(fd)
    assert wait_for(agent) == 0
    with pytest.raises(ProcessLookupError):
        os.kill(agent.pid, 0)
