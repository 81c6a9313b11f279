"""The supervisor of the tests' servers: nothing of them is left, however the test run ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import psutil  # type: ignore[import-untyped]  # psutil ships no types
import pytest

from tests.support.server_supervisor import SupervisedServers

_ROOT = Path(__file__).parents[3]
_NOTE = "import os, pathlib; pathlib.Path({name!r}).write_text(str(os.getpid()))\n"
_STUBBORN = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + _NOTE.format(
    name="stubborn"
)
_STAY = "import time; time.sleep(600)"
_ORPHAN = (  # a child in its own session whose parent ends at once, as a daemon makes itself
    "import os, time\n"
    "if os.fork() == 0:\n"
    "    os.setsid()\n"
    "    if os.fork() == 0:\n"
    "        import pathlib; pathlib.Path('orphan').write_text(str(os.getpid())); time.sleep(600)\n"
    "    os._exit(0)\n"
    "time.sleep(600)"
)


def _until(ready: Callable[[], object], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not ready():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def _orders(folder: Path, **commands: str) -> SupervisedServers:
    folder.mkdir()
    argv = {name: [sys.executable, "-S", "-c", code] for name, code in commands.items()}
    return SupervisedServers(commands=argv, folder=str(folder), grace=0.5, remove=True)


def _pid(note: Path) -> int:
    _until(lambda: note.exists() and note.read_text())
    return int(note.read_text())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where the commands run; the supervisor removes it."""
    return tmp_path / "kept"


def test_when_its_holder_is_killed_all_is_gone_daemons_and_the_folder_too(folder: Path) -> None:
    orders = _orders(folder, one=_STUBBORN + _STAY, two=_ORPHAN)
    holder = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import subprocess, sys, time\n"
            "subprocess.Popen(sys.argv[1:], stdin=subprocess.PIPE, start_new_session=True)\n"
            "time.sleep(600)",
            *orders.argv(),
        ],
        cwd=_ROOT,
    )
    pids = [_pid(folder / "stubborn"), _pid(folder / "orphan")]
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    _until(lambda: not any(psutil.pid_exists(pid) for pid in pids))
    _until(lambda: not folder.exists())


def test_when_one_command_ends_all_end_and_the_logs_stay(folder: Path) -> None:
    orders = _orders(folder, one=_STAY, two="print('no more'); raise SystemExit(3)", three=_ORPHAN)
    with subprocess.Popen(orders.argv(), cwd=_ROOT, stdin=subprocess.PIPE) as supervisor:
        assert supervisor.wait(timeout=20) == 1
    assert (folder / "two.log").read_text() == "no more\n"


def test_a_revived_command_is_started_again_without_the_rest_of_its_session(folder: Path) -> None:
    child = (
        "import os, subprocess, sys, time\n"
        "subprocess.Popen([sys.executable, '-S', '-c', 'import time; time.sleep(600)'])\n"
        "time.sleep(600)"
    )
    orders = replace(_orders(folder, one=child, two=_STAY), revived=("one",))
    with subprocess.Popen(orders.argv(), cwd=_ROOT, stdin=subprocess.PIPE) as supervisor:
        first = _pid(folder / "one.pid")
        _until(lambda: psutil.Process(first).children())
        (below,) = psutil.Process(first).children()
        os.kill(first, signal.SIGKILL)
        _until(lambda: _pid(folder / "one.pid") != first and not below.is_running())
        assert supervisor.poll() is None
        supervisor.communicate(timeout=20)


def test_commands_have_time_to_end_by_themselves(folder: Path) -> None:
    saves = (
        "import pathlib, signal, sys, time\n"
        "def save(*_):\n"
        "    time.sleep(0.1); pathlib.Path('../saved').touch(); sys.exit()\n"
        "signal.signal(signal.SIGTERM, save)\n" + _NOTE.format(name="ready")
    )
    orders = replace(_orders(folder, one=saves + _STAY), grace=60.0)
    with subprocess.Popen(orders.argv(), cwd=_ROOT, stdin=subprocess.PIPE) as supervisor:
        _pid(folder / "ready")
        supervisor.communicate(timeout=90)
    assert supervisor.returncode == 0
    assert (folder.parent / "saved").exists()
    assert not folder.exists()


def test_control_c_in_the_terminal_is_left_to_the_holder(folder: Path) -> None:
    orders = _orders(folder, one=_NOTE.format(name="ready") + _STAY)
    with subprocess.Popen(orders.argv(), cwd=_ROOT, stdin=subprocess.PIPE) as supervisor:
        pid = _pid(folder / "ready")
        os.kill(supervisor.pid, signal.SIGINT)
        with pytest.raises(subprocess.TimeoutExpired):
            supervisor.wait(timeout=0.5)
        assert psutil.pid_exists(pid)
        supervisor.communicate(timeout=20)
