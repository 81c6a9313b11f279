"""A process that should not outlive its parent does not."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from tests.support.launches import is_alive, wait_until

pytestmark = pytest.mark.launch


@pytest.mark.fault
def test_who_dies_with_its_parent_is_killed_when_the_parent_is() -> None:
    code = (
        "import os, sys, time\n"
        "from llutil.system.process_inheritance import die_with_parent\n"
        "parent = os.getpid()\n"
        "if os.fork() == 0:\n"
        "    die_with_parent(parent)\n"
        "    os.write(1, str(os.getpid()).encode() + b'\\n')\n"
        "time.sleep(60)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    with parent.stdout:
        child = int(parent.stdout.readline())
        parent.kill()
        parent.wait()
        assert wait_until(lambda: not is_alive(child))


@pytest.mark.fault
def test_who_finds_its_parent_gone_already_ends_at_once() -> None:
    code = (
        "from llutil.system.process_inheritance import die_with_parent\n"
        "die_with_parent(1 << 22)\n"
        "print('still here')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert (done.returncode, done.stdout) == (-signal.SIGKILL, b"")
