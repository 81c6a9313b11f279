"""What is read of processes while they do what processes do."""

from __future__ import annotations

import os
import subprocess
import time
import uuid
from pathlib import Path

import pytest

from llutil.system.kill_all import marked_processes
from llutil.system.process_table import environment_has, stat_of

LOOKS = 3000


@pytest.mark.parametrize("variables", [0, 20_000])
def test_a_process_that_starts_programs_all_the_time_keeps_its_mark(
    tmp_path: Path, variables: int
) -> None:
    """While execve is at work, the kernel shows an empty environment: first without an address, and
    then, the longer the more variables there are, at one.
    """
    script = tmp_path / "again"
    script.write_text('exec sh "$0"\n')
    variable = f"MARK={uuid.uuid4().hex}"
    name, _, value = variable.partition("=")
    env = {**os.environ, **{f"V{number}": "" for number in range(variables)}, name: value}
    with subprocess.Popen(["sh", str(script)], env=env) as process:
        try:
            carries = (variable.encode(),)
            missed = sum(
                environment_has(process.pid, carries, until=time.monotonic() + 60) is None
                for _ in range(LOOKS)
            )
        finally:
            process.kill()
    assert not missed


def test_a_process_without_an_environment_is_not_waited_for() -> None:
    with subprocess.Popen(["sleep", "60"], env={}) as process:
        try:
            stat = stat_of(process.pid)
            assert stat is not None
            assert stat.has_memory
            assert environment_has(process.pid, (b"MARK=1",), until=time.monotonic() + 60) is None
        finally:
            process.kill()
        process.wait()
    zombie = subprocess.Popen(["true"])
    try:
        os.waitid(os.P_PID, zombie.pid, os.WEXITED | os.WNOWAIT)
        stat = stat_of(zombie.pid)
        assert stat is not None
        assert not stat.has_memory
        assert marked_processes([stat], "1") == (set(), set())
    finally:
        zombie.wait()
