"""The only rank of a node has its agent's standard input, also if that is a terminal."""

from __future__ import annotations

import os
import select
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest

from tests.support.launches import launch
from tests.support.standard_input import standard_input

pytestmark = [pytest.mark.launch, pytest.mark.usefixtures("no_torch")]

ROOT = str(Path(__file__).parents[4])
LIMIT = 60.0  # seconds

PROGRAM = """
import os, sys, time
os.login_tty(os.dup(0))
from llutil.launcher.launch_agent import LaunchConfig, launch_agent
from torch.distributed.elastic.multiprocessing.api import SignalException

os.environ["PYTHONPATH"] = sys.argv[1]  # where ranks find no torch

def talk():
    name = input("name? ")
    number = 41
    breakpoint()
    return name, number

def wait():
    try:
        print("waiting", flush=True)
        while True:
            time.sleep(0.1)
    except KeyboardInterrupt:
        print("saved", flush=True)

for method in ("spawn", "fork", "forkserver"):
    print("found", launch_agent(LaunchConfig(1, 1, 1, start_method=method), talk, []), flush=True)
try:
    launch_agent(LaunchConfig(1, 1, 1), wait, [])
except SignalException as stop:
    print("stopped by", stop.sigval, flush=True)
"""


@pytest.mark.parametrize("method", ["spawn", "fork", "forkserver"])
def test_a_function_and_a_command_read_what_comes_to_their_launcher(method: str) -> None:
    with standard_input(b"hello\n"):
        assert launch(lambda: input("?"), start_method=method) == {0: "hello"}
    with standard_input(b"hello\n"):
        assert launch("sh", "-c", "read it; [ $it = hello ]", start_method=method) == {0: None}


class Terminal:
    """A program that makes its standard input its terminal, and somebody who types."""

    def __init__(self, *command: str, env: dict[str, str]) -> None:
        self._ours, programs = os.openpty()
        self._shown = b""
        self._process = subprocess.Popen(
            command, stdin=programs, stdout=programs, stderr=programs, env=env
        )
        os.close(programs)

    def until(self, text: str) -> str:
        """What is shown next, up to ``text``."""
        deadline = time.monotonic() + LIMIT
        while text.encode() not in self._shown:
            ready = select.select([self._ours], [], [], max(0.0, deadline - time.monotonic()))[0]
            assert ready, f"no {text!r} in {self._shown!r}"
            self._shown += os.read(self._ours, 1 << 16)
        before, _, self._shown = self._shown.partition(text.encode())
        return before.decode()

    def write(self, text: str) -> None:
        os.write(self._ours, text.encode())

    @property
    def echoes(self) -> bool:
        return bool(termios.tcgetattr(self._ours)[3] & termios.ECHO)

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        try:
            if kind is None:
                assert self._process.wait(LIMIT) == 0
        finally:
            os.close(self._ours)  # a program that still runs gets SIGHUP
            self._process.wait(LIMIT)


def test_on_a_terminal_a_rank_asks_is_debugged_and_is_stopped_by_ctrl_c(tmp_path: Path) -> None:
    (tmp_path / "main.py").write_text(PROGRAM)
    command = sys.executable, str(tmp_path / "main.py"), os.environ["PYTHONPATH"]
    with Terminal(*command, env={**os.environ, "PYTHONPATH": ROOT}) as terminal:
        for _ in range(3):
            terminal.until("name? ")
            terminal.write("Ada\n")
            terminal.until("(Pdb) ")
            terminal.write("number += 1\n")
            terminal.until("(Pdb) ")
            terminal.write("continue\n")
            terminal.until("found ")
            assert terminal.until("\n").strip() == "{0: ('Ada', 42)}"
        terminal.until("waiting")
        terminal.write("\x03")
        terminal.until("saved")
        terminal.until("stopped by 2")
        assert terminal.echoes
