"""The only rank of a node has its agent's standard input, also if that is a terminal."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from tests.support.launches import launch
from tests.support.standard_input import standard_input
from tests.support.terminal import Terminal

pytestmark = [pytest.mark.launch, pytest.mark.usefixtures("no_torch")]

ROOT = str(Path(__file__).parents[4])

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
input()  # when this process ends, the kernel drops what nobody has read from its terminal yet
"""


@pytest.mark.parametrize("method", ["spawn", "fork", "forkserver"])
def test_a_function_and_a_command_read_what_comes_to_their_launcher(method: str) -> None:
    with standard_input(b"hello\n"):
        assert launch(lambda: input("?"), start_method=method) == {0: "hello"}
    with standard_input(b"hello\n"):
        assert launch("sh", "-c", "read it; [ $it = hello ]", start_method=method) == {0: None}


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
        terminal.write("\n")
