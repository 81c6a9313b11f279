"""What is told of a failed job, whatever ran and however it died: to a reader who has nothing but
the error.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from llutil.agent.failures.report import WorkersFailed
from llutil.failure import FailureClass, JobFailure
from llutil.std import Std
from llutil.system import oom_kills
from tests.support import worker_functions
from tests.support.etcd_servers import etcd
from tests.support.forks import fork
from tests.support.launches import hide_torch, launch
from tests.support.leftovers import MARK
from tests.support.node_pair import End, NodePair
from tests.support.torch_forks import TorchForks

pytestmark = [pytest.mark.launch]

SCRIPT = """
import sys
def load(path):
    raise FileNotFoundError(f"no data in {path}")
if __name__ == "__main__":
    print("loading", file=sys.stderr)
    load("digits")
"""


@pytest.fixture
def script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "train.py"
    path.write_text(SCRIPT)
    monkeypatch.chdir(tmp_path)
    return path


def failure_of(entrypoint: Any, *args: Any, **fields: Any) -> tuple[str, JobFailure]:
    with pytest.raises(WorkersFailed) as caught:
        launch(entrypoint, *args, **fields)
    return str(caught.value), caught.value.job_failure


@pytest.mark.usefixtures("no_torch")
@pytest.mark.parametrize("how", ["script", "module", "command", "reference"])
@pytest.mark.parametrize("redirects", [Std.NONE, Std.ALL], ids=["console", "files"])
def test_code_that_knows_nothing_of_us_is_told_with_its_traceback_and_its_last_words(
    how: str, redirects: Std, script: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(script.parent))
    entrypoint, *args = {
        "script": [str(script)],
        "module": ["-m train"],
        "command": [sys.executable, str(script)],
        "reference": ["train:load", "digits"],
    }[how]
    text, told = failure_of(entrypoint, *args, redirects=redirects, node_label="mine")
    lines = text.splitlines()
    said = "exit code 1: " if how == "command" else ""
    assert lines[0].endswith(f"failed: rank 0: {said}FileNotFoundError: no data in digits")
    assert f"of node 0 on {socket.gethostname()}, pid {told.failure.pid}, after 0 of 0" in lines[1]
    assert lines[2] == "  failure class: user code"
    assert sum("Traceback (most recent call last):" in line for line in lines) == 1
    assert sum("raise FileNotFoundError" in line for line in lines) == 1
    if how != "reference":
        assert "  loading" in lines
    assert len(lines) <= 60
    assert told.failure.exit_status == 1


@pytest.mark.usefixtures("no_torch")
def test_what_a_rank_prints_on_stderr_is_shown_as_it_comes_and_told_in_the_end(
    capfd: pytest.CaptureFixture[str],
) -> None:
    def draw() -> None:
        for text in (b"\r10%", b"\r20%", b"\nand ", b"more\n", b"no newline"):
            os.write(2, text)
            time.sleep(0.01)
        os._exit(3)

    _, told = failure_of(draw)
    assert capfd.readouterr().err == "\r10%\r20%\nand more\nno newline"
    # Of a line's states that are read at once, only the last one is a line.
    *earlier, last, joined, open_end = told.failure.tail
    assert (last, joined, open_end) == ("20%", "and more", "no newline")
    assert earlier in ([], ["10%"])


@contextmanager
def limited_group() -> Iterator[Path | None]:
    """A memory cgroup of 400 MB, of whichever version; None where this user may make none."""
    v1, v2 = Path("/sys/fs/cgroup/memory"), Path("/sys/fs/cgroup")
    for root, limit in ((v1, "memory.limit_in_bytes"), (v2, "memory.max")):
        group = root / f"llutil-test-{os.getpid()}"
        made = False
        with suppress(OSError):
            group.mkdir()
            made = True
            (group / limit).write_text(str(400 << 20))
            with suppress(OSError):  # where there is no swap, it cannot be forbidden
                (group / "memory.swap.max").write_text("0")
            try:
                yield group
            finally:
                group.rmdir()
            return
        if made:
            group.rmdir()
    yield None


with limited_group() as _group:
    KINDS = ["a count in files", *(["the kernel"] if _group else [])]
"""Where no memory cgroup can be made, the kernel's part is played by files alone."""


def devour(folder: str) -> None:
    """Take more memory than there is; first in line to be killed for it."""
    Path("/proc/self/oom_score_adj").write_text("1000")
    held = [b"x" * (1 << 20) for _ in range(1000)]
    raise AssertionError(f"there was enough for {len(held)} MB")


def count_a_kill(folder: str) -> None:
    """Die as the kernel would have it, and count it where the agent looks."""
    Path(folder, "cgroup", "memory.events").write_text("oom_kill 1\n")
    os.kill(os.getpid(), signal.SIGKILL)


def devour_in_a_child(folder: str) -> None:
    """A program of the rank's does so."""
    code = "from tests.integration.agent.failures.test_report import devour; devour('')"
    subprocess.run([sys.executable, "-c", code], check=True)


class Devourer:
    """A dataset whose first item is too large."""

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> None:
        devour("")


def devour_in_a_loader(folder: str) -> None:
    """A worker of the rank's data loader does so."""
    from torch.utils.data import DataLoader

    list(DataLoader(Devourer(), num_workers=1))  # type: ignore[arg-type]


def in_a_process(call: Any, folder: Path) -> dict[str, Any]:
    """What ``call`` gave in a fork of this process."""
    pid = fork()
    if pid == 0:
        try:
            (folder / "told").write_text(json.dumps(call()))
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(0)
    deadline = time.monotonic() + 60
    while os.waitpid(pid, os.WNOHANG) == (0, 0):
        assert time.monotonic() < deadline, os.kill(pid, signal.SIGKILL)
        time.sleep(0.01)
    return json.loads((folder / "told").read_text())


if _group:

    @pytest.mark.fault
    @pytest.mark.parametrize(
        ("devours", "says"),
        [
            (devour_in_a_child, "died with <Signals.SIGKILL: 9>"),
            (devour_in_a_loader, "exited unexpectedly"),
        ],
    )
    def test_a_rank_whose_child_is_killed_for_lack_of_memory_is_told_as_that(
        devours: Any, says: str, tmp_path: Path, folder: str
    ) -> None:
        with limited_group() as group:
            assert group is not None

            def inside() -> dict[str, Any]:
                (group / "cgroup.procs").write_text(str(os.getpid()))
                text, told = failure_of(devours, folder, start_method="fork")
                return {"text": text, "class": told.failure_class}

            found = in_a_process(inside, tmp_path)
        first = found["text"].splitlines()[0]
        assert says in first
        assert "(out of memory: the kernel killed 1 process for it" in first
        assert found["class"] == FailureClass.OUT_OF_MEMORY


@pytest.mark.fault
@pytest.mark.usefixtures("no_torch")
@pytest.mark.parametrize("kind", KINDS)
def test_a_rank_that_is_killed_for_lack_of_memory_is_told_as_that(
    kind: str, tmp_path: Path, folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def told(entrypoint: Any) -> dict[str, Any]:
        text, told = failure_of(entrypoint, folder, start_method="fork")
        return {"text": text, "class": told.failure_class}

    if kind == "the kernel":
        with limited_group() as group:
            assert group is not None

            def inside() -> dict[str, Any]:
                (group / "cgroup.procs").write_text(str(os.getpid()))
                return told(devour)

            found, where = in_a_process(inside, tmp_path), str(group)
    else:
        where = str(tmp_path / "cgroup")
        (tmp_path / "cgroup").mkdir()
        (tmp_path / "cgroup" / "memory.events").write_text("oom_kill 0\n")
        proc = tmp_path / "proc"
        (proc / "self").mkdir(parents=True)
        (proc / "self" / "cgroup").write_text("0::/\n")
        (proc / "self" / "mountinfo").write_text(f"25 30 0:26 / {where} rw - cgroup2 cgroup2 rw\n")
        monkeypatch.setattr(oom_kills, "PROC", proc)
        found = told(count_a_kill)
    first = found["text"].splitlines()[0]
    assert "rank 0: signal 9 (SIGKILL: out of memory: the kernel killed 1 process for it" in first
    assert f"as the memory cgroup {where} counted" in first
    assert found["class"] == FailureClass.OUT_OF_MEMORY


def reduce(how: str) -> None:
    """Rank 1 does not come to the collective that rank 0 waits in."""
    from datetime import timedelta

    import torch
    import torch.distributed as dist

    dist.init_process_group("gloo", timeout=timedelta(seconds=60))
    if how == "hangs":
        dist.barrier()  # both ranks are there
        dist.distributed_c10d._set_pg_timeout(timedelta(seconds=1))
    if os.environ["RANK"] == "1":
        if how == "dies":
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(60)
    dist.all_reduce(torch.ones(1))


@pytest.mark.fault
@pytest.mark.parametrize(
    ("how", "rank", "failure_class", "says"),
    [
        ("hangs", 0, FailureClass.HANG, "Timed out waiting"),
        ("dies", 1, FailureClass.INFRASTRUCTURE, "signal 9 (SIGKILL"),
    ],
)
def test_who_is_told_of_a_collective_is_the_cause_as_far_as_it_is_known(
    how: str, rank: int, failure_class: FailureClass, says: str
) -> None:
    """A rank that died is told, whether its peer's own error was noticed before or not."""
    text, told = failure_of(reduce, how, nproc=2, start_method="fork", shutdown_timeout=1)
    assert (told.failure and told.failure.rank, told.failure_class) == (rank, failure_class)
    assert says in text.splitlines()[0]


@pytest.fixture(scope="module")
def pair(
    tmp_path_factory: pytest.TempPathFactory, torch_forks: TorchForks
) -> Iterator[Callable[..., tuple[End, End]]]:
    """Launches a function on two nodes, and gives both ends."""
    folder = tmp_path_factory.mktemp("pair")
    hide_torch(folder)
    env = {name: os.environ[name] for name in (MARK, "TMPDIR") if name in os.environ}
    with etcd() as server:
        pair = NodePair(torch_forks, folder, str(server.endpoint))

        def launch(function: str, own: Path) -> tuple[End, End]:
            return pair.launch(
                f"{worker_functions.__name__}:{function}",
                str(own),
                seconds=50,
                env=env | {"PYTHONPATH": str(folder)},
                rdzv_configs={"lease_ttl": 60},  # nobody may wait for its end
                shutdown_timeout=60,  # nor for this
                restart_grace=60,
                start_method="fork",
                log_dir=str(own / "logs"),
            )

        try:
            yield launch
        finally:
            pair.close()


@pytest.mark.etcd
def test_every_node_tells_the_first_failure_of_the_whole_job_in_full_and_at_once(
    tmp_path: Path, pair: Callable[..., tuple[End, End]]
) -> None:
    ends = pair("fail_on_rank_1", tmp_path)
    near, far = (end.text.splitlines() for end in ends)
    pid = (tmp_path / "running-1").read_text()
    for lines in (near, far):
        assert lines[0].endswith("fail_on_rank_1 failed: rank 1: ValueError: no such digit")
        place = (
            f"  rank 1 (local rank 0) of node 1 'b' on {socket.gethostname()}, pid {pid}, after 0"
        )
        assert lines[1].startswith(place)
        assert "    raise ValueError(" in "\n".join(lines)
        assert "  loading" in lines
        assert len(lines) <= 60
    end = near.index("  loading")
    assert near[:end] == far[:end], "both tell the same"
    assert near[end + 2].startswith("on this node rank 0 (pid ")
    assert near[end + 2].endswith("Connection closed by peer [::1]:7")
    assert [end.kind for end in ends] == ["WorkersFailed"] * 2


@pytest.mark.etcd
def test_a_rank_that_was_dying_when_its_round_was_ended_is_told_as_the_cause(
    tmp_path: Path, pair: Callable[..., tuple[End, End]]
) -> None:
    for end in pair("die_while_asked_to_end", tmp_path):
        assert end.kind == "WorkersFailed"
        assert "die_while_asked_to_end failed: rank 1: signal 9" in end.text.splitlines()[0]
