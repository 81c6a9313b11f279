"""``make gpu``, as far as it can be tried without a GPU; ``python -m tests.gpu --dry`` tries its
jobs on the CPU.
"""

from __future__ import annotations

import mmap
import os
import re
import signal
import subprocess
from contextlib import ExitStack
from pathlib import Path

import pytest

from llutil.errors import ConfigError
from llutil.system.job_mark import GUARDIAN_VARIABLE
from tests.gpu import __main__ as script
from tests.gpu.device_use import DeviceUse, found_in, is_touched, use_of
from tests.gpu.operator_agent import own_processes
from tests.gpu.parts import PARTS
from tests.gpu.table import Row, table

_NOTHING = DeviceUse(driver=False)
_IMPORTED = DeviceUse(driver=True)


@pytest.mark.parametrize(
    ("file", "is_driver"),
    [
        ("/usr/lib/x86_64-linux-gnu/libcuda.so.535.104.05", True),
        ("/usr/lib/wsl/lib/libcuda.so.1", True),
        ("/venv/lib/python3.11/site-packages/torch/lib/libtorch_cuda.so", False),
        ("/venv/lib/python3.11/site-packages/nvidia/cuda_runtime/lib/libcudart.so.12", False),
        ("/venv/lib/python3.11/site-packages/torch/lib/libc10_cuda.so", False),
    ],
)
def test_the_drivers_library_is_told_from_those_that_come_with_torch(
    file: str, is_driver: bool
) -> None:
    line = f"7f00a000-7f00b000 r-xp 00000000 08:01 42                         {file}\n"
    assert found_in(line, []).driver is is_driver


def test_device_files_are_told_from_others() -> None:
    files = ["/dev/null", "/dev/nvidiactl", "/dev/nvidia0", "/tmp/nvidia0", "pipe:[3]", "/dev/dxg"]
    assert found_in("", files).devices == ("/dev/dxg", "/dev/nvidia0", "/dev/nvidiactl")


def test_a_process_is_looked_at_in_proc(tmp_path: Path) -> None:
    (tmp_path / "5" / "fd").mkdir(parents=True)
    (tmp_path / "5" / "maps").write_text("7f-8f r-xp 0 08:01 4 /usr/lib/libcuda.so.1\n")
    (tmp_path / "5" / "fd" / "3").symlink_to("/dev/nvidia-uvm")
    assert use_of(5, tmp_path) == DeviceUse(driver=True, devices=("/dev/nvidia-uvm",))
    with pytest.raises(FileNotFoundError):
        use_of(6, tmp_path)


def test_a_driver_is_found_in_a_process_that_has_mapped_it(tmp_path: Path) -> None:
    file = tmp_path / "libcuda.so.1"
    file.write_bytes(bytes(mmap.PAGESIZE))
    assert not use_of(os.getpid()).driver
    with file.open("rb") as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ):
        assert use_of(os.getpid()).driver
    assert not use_of(os.getpid()).driver


def test_each_process_of_a_job_is_named_and_ranks_and_their_children_are_left_out() -> None:
    with ExitStack() as ends:

        def start(*command: str, **environment: str) -> subprocess.Popen[str]:
            process = subprocess.Popen(
                command,
                stdout=subprocess.PIPE,
                text=True,
                env={**os.environ, **environment},
                start_new_session=True,
            )
            ends.enter_context(process)
            ends.callback(os.killpg, process.pid, signal.SIGKILL)
            return process

        guardian = start("sleep", "60", **{GUARDIAN_VARIABLE: "mark"})
        other = start("sleep", "60")
        server = start("sh", "-c", "sh -c 'sleep 60 & echo $$ $!; wait' & wait")
        assert server.stdout is not None
        rank, child = map(int, server.stdout.readline().split())
        own = own_processes(os.getpid(), [rank])
        mine = {pid: own.get(pid) for pid in (os.getpid(), guardian.pid, other.pid, server.pid)}
        assert list(mine.values()) == ["agent", "guardian", "other", "fork server"]
        assert not {rank, child, os.getppid()} & own.keys()


def test_the_page_of_known_issues_lists_the_parts() -> None:
    page = (Path(__file__).parents[2] / "docs" / "known-issues.md").read_text()
    _, _, listed = page.partition("| part | what it does |\n|---|---|\n")
    assert re.findall(r"^\| `([^`]+)` \|", listed, re.MULTILINE) == list(PARTS)


@pytest.mark.parametrize(
    ("use", "imported", "touched"),
    [
        (_NOTHING, _NOTHING, False),
        (DeviceUse(driver=True), _NOTHING, True),
        (DeviceUse(driver=True), _IMPORTED, False),
        (DeviceUse(driver=True, devices=("/dev/nvidiactl",)), _IMPORTED, True),
        (DeviceUse(driver=False, devices=("/dev/nvidia0",)), _NOTHING, True),
    ],
)
def test_cuda_is_touched_by_whoever_shows_more_than_an_import(
    use: DeviceUse, imported: DeviceUse, touched: bool
) -> None:
    assert is_touched(use, imported) is touched


def test_without_a_gpu_it_says_so_and_tries_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def none(wanted: str) -> int:
        raise ConfigError("torch sees no accelerator on this host")

    monkeypatch.setattr(script, "worker_count", none)
    assert script.main([]) == 2
    assert capsys.readouterr().out == (
        "nothing was tried: torch sees no accelerator on this host\n"
    )


def test_a_part_that_breaks_or_has_no_time_is_in_the_table() -> None:
    broken = script._run("no such part", "cpu", 60.0)
    late = script._run("gloo", "cpu", 0.5)
    assert [row.good for row in (broken, late)] == [False, False]
    assert broken.said == "KeyError: 'no such part'"
    lines = table([broken, Row("nccl", None, 0.0, "needs a GPU")]).splitlines()
    assert [" ".join(line.split()[:5]) for line in lines][1] == "nccl not tried 0 s"
    assert "FAILED" in lines[0]
