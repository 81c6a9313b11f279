"""Ranks that are killed while they commit: what counts afterwards is whole."""

from __future__ import annotations

import os
import random
import signal
import time
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest

from llutil.checkpoints.marker import Checkpoint
from llutil.checkpoints.place import FOLDER, ROUND
from llutil.checkpoints.saves import Saves
from tests.support.forks import fork

pytestmark = pytest.mark.fault

SOON = 30.0
CHUNKS, CHUNK = 3, 5000


def content(step: int, rank: int) -> bytes:
    return f"{step}/{rank};".encode() * CHUNK


def train(folder: str, name: str, rank: int, size: int) -> None:
    """A rank that saves at every step, from where the job is."""
    saves = Saves({FOLDER: folder, ROUND: name, "RANK": str(rank), "WORLD_SIZE": str(size)})
    done = saves.resume()
    step = done.step if done else 0
    while True:
        step += 1
        with saves.save(step) as path, Path(path, f"rank-{rank}").open("wb") as file:
            for _ in range(CHUNKS):
                file.write(content(step, rank))
                file.flush()


def start(work: Callable[[], object]) -> int:
    pid = fork()
    if pid == 0:
        try:
            work()
        finally:
            os._exit(1)
    return pid


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)


def newest(folder: str) -> Checkpoint | None:
    return Saves({FOLDER: folder}).resume()


def is_whole(found: Checkpoint) -> bool:
    return all(
        (Path(found.path) / f"rank-{rank}").read_bytes() == content(found.step, rank) * CHUNKS
        for rank in range(found.world_size)
    )


@pytest.mark.parametrize("size", [2, 3])
def test_after_a_kill_at_any_moment_the_newest_is_whole_and_no_older_than_before(
    size: int, temporary: Path
) -> None:
    """20 rounds: now all ranks die at once, now one dies, and the others soon after it."""
    folder = str(temporary / "job")
    seed = random.SystemRandom().getrandbits(32)
    print(f"seed {seed}")
    moments = random.Random(seed)
    steps = [0]
    for number in range(20):
        name = uuid.uuid4().hex
        ranks = [
            start(lambda rank=rank, name=name: train(folder, name, rank, size))
            for rank in range(size)
        ]
        before = steps[-1]
        deadline = time.monotonic() + SOON
        while number % 3 == 0 and (newest(folder) or Checkpoint("", 0, 0)).step <= before:
            assert time.monotonic() < deadline, "the job does not go on"
        time.sleep(moments.uniform(0, 0.1))
        moments.shuffle(ranks)
        kill(ranks[0])
        time.sleep(moments.choice([0, 0.02]))
        for pid in ranks[1:]:
            kill(pid)
        for pid in ranks:
            os.waitpid(pid, 0)
        found = newest(folder)
        if found is not None:
            assert is_whole(found), found
            assert found.step >= before
            steps.append(found.step)
    assert steps[-1] >= 7
    print(f"the newest after each kill: {steps}")
    parts = [path.name for path in (temporary / "job").glob("step-*")]
    assert len(parts) <= 3 + 2 + 1, parts  # those that are kept, one not yet removed, one begun


def test_a_rank_that_is_killed_inside_leaves_nobody_waiting_for_ever(temporary: Path) -> None:
    folder = str(temporary / "job")
    environment = {FOLDER: folder, ROUND: "r", "WORLD_SIZE": "2"}

    def stay() -> None:
        with Saves(environment | {"RANK": "1"}).save(1):
            signal.pause()

    pid = start(stay)
    deadline = time.monotonic() + SOON
    while not list((temporary / "job" / ".attempts").glob("*/1-entered-1")):
        assert time.monotonic() < deadline
        time.sleep(0.001)
    kill(pid)
    os.waitpid(pid, 0)
    saves = Saves(environment | {"RANK": "0", "LLUTIL_CHECKPOINT_TIMEOUT": "0.2"})
    with pytest.raises(Exception, match=r"have not left it: ranks \[1\]"), saves.save(1):
        pass
    assert newest(folder) is None


def test_a_disk_that_fills_up_fails_that_checkpoint_only(temporary: Path) -> None:
    """/dev/full takes no byte; the file system below the folder goes on."""
    saves = Saves({FOLDER: str(temporary / "job")})
    with saves.save(1) as path:
        Path(path, "data").write_bytes(b"1")

    def full() -> None:
        with saves.save(2) as path:
            Path(path, "data").symlink_to("/dev/full")
            with Path(path, "data").open("wb", buffering=0) as file:
                file.write(b"2")

    with pytest.raises(OSError, match="No space left"):
        full()
    found = newest(str(temporary / "job"))
    assert found is not None
    assert found.step == 1
    with saves.save(3) as path:
        Path(path, "data").write_bytes(b"3")
    assert saves.resume() == newest(str(temporary / "job"))
