"""Ranks of a real job are debugged on the terminal where it was launched, one after the other."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from tests.support.terminal import Terminal

pytestmark = [pytest.mark.launch, pytest.mark.usefixtures("no_torch")]

ROOT = str(Path(__file__).parents[3])

PROGRAM = """
import os, sys, time
os.login_tty(os.dup(0))
from llutil.launcher.launch_agent import LaunchConfig, launch_agent
from torch.distributed.elastic.multiprocessing.api import SignalException

os.environ["PYTHONPATH"] = sys.argv[1]  # where ranks find no torch

def train(go):
    from llutil import launcher
    from llutil.launcher import worker
    made = 0
    for step in range(1, 4):
        worker.step(step, 3)
        made += step
        while step == 1 and not os.path.exists(go):
            time.sleep(0.01)
        if step == 2 and worker.rank() == 1:
            breakpoint()
            made += 0
    while worker.rank() == 0 and not worker.events().debugged:
        time.sleep(0.01)
    launcher.breakpoint()
    return made

def stop_again():
    breakpoint()
    time.sleep(100)

print("found", launch_agent(LaunchConfig(1, 1, 2), train, [sys.argv[2]]), flush=True)
try:
    launch_agent(LaunchConfig(1, 1, 2, max_restarts=1), stop_again, [])
except SignalException as stop:
    print("stopped by", stop.sigval, flush=True)
input()  # when this process ends, the kernel drops what nobody has read from its terminal yet
"""


def test_ranks_take_turns_at_the_terminal_and_ctrl_c_stops_the_job(tmp_path: Path) -> None:
    (tmp_path / "main.py").write_text(PROGRAM)
    go = tmp_path / "go"
    command = sys.executable, str(tmp_path / "main.py"), os.environ["PYTHONPATH"], str(go)
    env = {
        **os.environ,
        "PYTHONPATH": ROOT,
        "PYTHONBREAKPOINT": "llutil.launcher.breakpoint",
        "TERM": "xterm",
    }
    with Terminal(*command, env=env, size=(100, 24)) as terminal:
        terminal.until("progress: rank 0 1/3 (33 %), rank 1 1/3 (33 %)")
        go.touch()
        # Rank 0 comes to its breakpoint then, and waits for its turn.
        terminal.until("rank 1 on ")
        # The line of progress gives its place back, before the prompt is there or after that.
        if "\x1b[r" not in terminal.until("(Pdb rank 1) "):
            terminal.until("\x1b[r")
            terminal.until("\x1b8")
        terminal.write("p made\n")
        assert terminal.until("(Pdb rank 1) ").split() == ["p", "made", "3"]
        terminal.write("made = 100\n")
        terminal.until("(Pdb rank 1) ")
        terminal.write("c\n")
        order = []
        for _ in range(2):
            terminal.until("(Pdb rank ")
            order.append(terminal.until(") "))
            terminal.write("c\n")
        assert sorted(order) == ["0", "1"]
        terminal.until("progress: rank 0 3/3 (100 %), rank 1 3/3 (100 %)")
        terminal.until("found ")
        assert terminal.until("\n").strip() == "{0: 6, 1: 103}"
        # A rank dies at its prompt. In the next round the terminal is free.
        terminal.until("(Pdb rank ")
        terminal.write("import os; os.kill(os.getpid(), 9)\n")
        terminal.until("has the terminal")
        terminal.until("(Pdb rank ")
        terminal.write("\x03")
        terminal.until("stopped by 2")
        assert terminal.echoes
        terminal.write("\n")
