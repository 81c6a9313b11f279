"""A job that `llutil run` has launched is shown and steered from another process, and by Ctrl-C."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from llutil.agent_socket.folder import SocketName, socket_names
from llutil.command_line.main import main
from tests.support.command_lines import STEPS, llutil_command, own_environment
from tests.support.etcd_servers import EtcdServer
from tests.support.launches import wait_until
from tests.support.terminal import Terminal
from tests.support.warm_python import Forked, WarmPython

pytestmark = [pytest.mark.launch, pytest.mark.usefixtures("no_torch")]

Says = Callable[..., str]


@pytest.fixture
def run_id() -> str:
    """A name that no other test has: other test processes have jobs on this host, too."""
    return f"cli-{os.getpid()}-{time.monotonic_ns()}"


@pytest.fixture
def script(tmp_path: Path) -> str:
    path = tmp_path / "steps.py"
    path.write_text(STEPS)
    return str(path)


@pytest.fixture
def says(capsys: pytest.CaptureFixture[str]) -> Says:
    """What a command prints; it must succeed."""

    def says(*words: str) -> str:
        code = main(words)
        printed = capsys.readouterr()
        assert code == 0, printed.err
        return printed.out

    return says


@contextmanager
def job(
    python: WarmPython, output: Path, *words: str
) -> Iterator[Forked | subprocess.Popen[bytes]]:
    """``llutil run`` with these words; what it prints goes into ``output``."""
    with output.open("wb") as file:
        process = python.popen(
            llutil_command("run", *words),
            stdin=subprocess.DEVNULL,
            stdout=file.fileno(),
            stderr=file.fileno(),
            pass_fds=(),
            env=own_environment(),
            start_new_session=True,
            cwd=str(output.parent),  # ranks save there, if they are given no other place
        )
    try:
        yield process
    finally:
        process.kill()
        process.wait(60)
        print(output.read_text())  # shown if the test fails


def names_of(run_id: str) -> list[SocketName]:
    return [name for name in socket_names() if name.may_be_of(run_id)]


def status_of(run_id: str, says: Says) -> dict[str, Any]:
    (status,) = json.loads(says("status", run_id, "--json"))
    found: dict[str, Any] = status
    return found


def makes_steps(run_id: str, says: Says, after: int = 0) -> dict[str, Any]:
    """The status of the job when all of its ranks have made more steps."""
    assert wait_until(lambda: names_of(run_id))
    found: list[dict[str, Any]] = []

    def more() -> bool:
        found[:] = [status_of(run_id, says)]
        steps = [rank["step"] for rank in found[0]["ranks"]]
        return len(steps) == 2 and all(step is not None and step > after for step in steps)

    assert wait_until(more)
    return found[0]


def test_a_running_job_is_shown_paused_saved_looked_into_and_stopped(
    python_with_torch: WarmPython,
    script: str,
    run_id: str,
    says: Says,
    tmp_path: Path,
    shared_etcd: EtcdServer,
) -> None:
    output, place = tmp_path / "output", tmp_path / "checkpoints"
    store = ["--rdzv-endpoint", str(shared_etcd.endpoint), "--rdzv-backend", "etcd"]
    options = ["--nproc-per-node", "2", "--rdzv-id", run_id, "--checkpoint-path", str(place)]
    options += ["--nnodes", "1:2", *store, "--rdzv-conf", "last_call_timeout=0"]
    with job(python_with_torch, output, *options, script) as process:
        status = makes_steps(run_id, says)
        assert (status["state"], status["node"], status["world_size"]) == ("runs", 0, 2)
        assert status["pid"] == process.pid

        (row,) = [line for line in says("ps").splitlines() if line.startswith(run_id)]
        assert re.search(rf" 0 of 1 +runs +2 of 2 +\d+ .* 0 of 0 +{process.pid}$", row)
        assert run_id in {one["run_id"] for one in json.loads(says("ps", "--json"))}

        text = says("status", run_id)
        assert re.search(rf"^program +{re.escape(script)}$", text, re.MULTILINE)
        ranks = [rank["pid"] for rank in status["ranks"]]
        assert all(re.search(rf"^ +\d +\d +{pid} ", text, re.MULTILINE) for pid in ranks)

        told = says("pause", run_id, "--why", "the data move")
        step = re.fullmatch(r"paused after step (\d+): llutil pause: the data move\n", told)
        assert step
        paused = status_of(run_id, says)
        assert paused["state"] == "paused"
        assert {rank["step"] for rank in paused["ranks"]} == {int(step[1])}
        assert {rank["doing"] for rank in paused["ranks"]} == {"held"}

        whole = json.loads(says("status", run_id, *store, "--json"))
        assert (whole["state"], whole["world_size"], whole["restarts"]) == ("runs", 2, 0)
        assert whole["detail"] == f"pause after step {step[1]}: llutil pause: the data move"
        assert re.search(r"^\S+ +\S+ +0 to 1 +yes$", says("status", run_id, *store), re.MULTILINE)

        stacks = says("stacks", run_id)
        assert all(f"pid {pid}" in stacks for pid in ranks)
        assert f'File "{script}", line 8, in <module>' in stacks
        for rank in json.loads(says("stacks", run_id, "--json")):
            assert script in {frame["file"] for frame in rank["threads"][0]}

        assert says("resume", run_id) == "the ranks go on\n"
        makes_steps(run_id, says, after=int(step[1]))

        told = says("checkpoint", run_id)
        saved = re.match(rf"the checkpoint of step (\d+) is committed, below {place}/", told)
        assert saved
        assert status_of(run_id, says)["saved"] == int(saved[1])

        told = says("stop", run_id, "--why", "good enough")
        assert process.wait(60) == 0
    stopped = re.search(r"was stopped after step (\d+): llutil stop: good", output.read_text())
    assert stopped
    assert "outcome   succeeded" in says("status", run_id, *store)
    # It may have ended before the command has looked again.
    assert told in {f"all ranks stop after step {stopped[1]}\n", f"run {run_id!r} has ended\n"}
    assert not names_of(run_id)


def test_the_socket_of_an_agent_that_was_killed_is_cleared(
    python_with_torch: WarmPython, script: str, run_id: str, says: Says, tmp_path: Path
) -> None:
    options = ["--nproc-per-node", "2", "--rdzv-id", run_id]
    with job(python_with_torch, tmp_path / "output", *options, script) as process:
        makes_steps(run_id, says)
        process.kill()
        process.wait(60)
        assert run_id not in says("ps")
        assert not names_of(run_id)


def test_ctrl_c_has_ranks_save_and_stop_and_a_terminal_shows_a_table(
    python_with_torch: WarmPython, script: str, run_id: str, says: Says, tmp_path: Path
) -> None:
    place = str(tmp_path / "checkpoints")
    command = llutil_command(
        "run", "--nproc-per-node", "2", "--rdzv-id", run_id, "--checkpoint-path", place, script,
        on_terminal=True,
    )  # fmt: skip
    env = own_environment(TERM="xterm", LLUTIL_PROGRESS="off")
    with Terminal(*command, env=env, popen=python_with_torch.popen) as terminal:
        terminal.until("round of 2 ranks started")
        makes_steps(run_id, says)
        with Terminal(sys.executable, "-m", "llutil", "ps", env=env, size=(160, 24)) as looks:
            looks.until("\x1b[1mRUN ID")
            looks.until(run_id)
            looks.until("\x1b[32mruns")
        terminal.write("\x03")
        terminal.until("got SIGINT: the ranks here have 30 s to save and to end; Ctrl-C again")
        shown = terminal.until("llutil run: stopped by SIGINT")
        terminal.until("ended with 130")
        terminal.write("\n")
    steps = {int(step) for step in re.findall(r"rank \d stops after step (\d+)", shown)}
    assert len(steps) == 1, shown
    (saved,) = Path(place, run_id).glob("step-*")
    assert saved.name.startswith(f"step-{max(steps)}-")


def test_a_second_ctrl_c_ends_ranks_that_do_not_want_to(
    python_with_torch: WarmPython, run_id: str, tmp_path: Path
) -> None:
    script = tmp_path / "stubborn.py"
    script.write_text(
        "import signal, time\n"
        "signal.signal(signal.SIGINT, lambda *_: print('not yet', flush=True))\n"
        "print('begins', flush=True)\n"
        "while True: time.sleep(1)\n"
    )
    command = llutil_command(
        "run", "--rdzv-id", run_id, "--grace-period", "600", str(script), on_terminal=True
    )
    env = own_environment(TERM="xterm")
    with Terminal(*command, env=env, popen=python_with_torch.popen) as terminal:
        terminal.until("begins")
        terminal.write("\x03")
        terminal.until("not yet")
        terminal.write("\x03")
        terminal.until("llutil run: stopped by SIGINT")
        terminal.until("ended with 130")
        terminal.write("\n")


def test_sigterm_ends_a_job_with_the_shells_exit_code(
    python_with_torch: WarmPython, script: str, run_id: str, says: Says, tmp_path: Path
) -> None:
    output = tmp_path / "output"
    options = ["--nproc-per-node", "2", "--rdzv-id", run_id, "--checkpoint-path", str(tmp_path)]
    with job(python_with_torch, output, *options, script) as process:
        makes_steps(run_id, says)
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 128 + signal.SIGTERM
    assert "llutil run: stopped by SIGTERM" in output.read_text()
