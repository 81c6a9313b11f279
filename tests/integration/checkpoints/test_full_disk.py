"""A disk that is full fails that save alone, on a file system of one megabyte."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from llutil.checkpoints.place import FOLDER, ROUND

pytestmark = pytest.mark.fault

ROOT = Path(__file__).parents[3]
PROGRAM = """
import os, sys
from llutil import worker
from llutil.checkpoints.place import FOLDER
from llutil.checkpoints.saves import Saves

ahead, behind = os.pipe(), os.pipe()
rank = 0 if os.fork() else 1
os.environ["RANK"] = str(rank)
told = []

mine, others = (ahead, behind) if rank == 0 else (behind, ahead)
os.close(others[1])

def barrier():
    os.write(mine[1], b"x")
    assert os.read(others[0], 1), "the other rank has ended"

def fill(size):
    # as much as there is room for, beside the job
    with open(ballast, "ab", buffering=0) as file:
        try:
            for _ in range(size // 4096):
                file.write(bytes(4096))
        except OSError as error:
            return error

def save(step, size):
    try:
        with worker.checkpoint(step) as folder:
            if rank == 0:
                with open(f"{folder}/state", "wb") as file:
                    file.write(bytes(size))
    except Exception as error:
        told.append(f"{step} {type(error).__name__}: {error}")

def newest():
    alone = Saves({FOLDER: os.environ[FOLDER]}).resume()
    return alone and alone.step

ballast = os.path.join(os.path.dirname(os.environ[FOLDER]), "ballast")
save(1, 300_000)
assert newest() == worker.resume().step == 1, told
save(2, 2_000_000)              # what fits of it stays, and fills the disk
assert newest() == worker.resume().step == 1
assert len(told) == 1, told
assert "No space left on device" in told[0], told  # also for the rank that wrote nothing

# A later round finds the disk full, and has to say what it resumes from.
barrier()
os.environ["LLUTIL_ROUND"] = "r2"
worker._state.forget()
if rank == 0:
    assert fill(2**20)
assert worker.resume().step == 1
if rank == 0:
    assert not fill(500_000)
save(3, 300_000)                # too large beside what others have written
assert newest() == 1
assert "No space left on device" in told[1], told
barrier()  # the next save removes what this one has left, and the other rank reads it yet
if rank == 0:
    os.unlink(ballast)
save(4, 300_000)
assert newest() == worker.resume().step == 4, told
os.write(1, b"all well %d\\n" % rank)
if rank == 0:
    os._exit(os.waitstatus_to_exitcode(os.wait()[1]))
os._exit(0)
"""


def test_the_last_good_checkpoint_stays_and_the_next_save_with_room_counts(
    temporary: Path,
) -> None:
    disk = temporary / "disk"
    disk.mkdir()
    namespaces = ["--mount"] if os.geteuid() == 0 else ["--mount", "--user", "--map-root-user"]
    mount = f'mount -t tmpfs -o size=1m none "{disk}" && exec "$0" -c "$1"'
    done = subprocess.run(
        ["unshare", *namespaces, "sh", "-c", mount, sys.executable, PROGRAM],
        env=os.environ
        | {
            FOLDER: str(disk / "job"),
            ROUND: "r1",
            "WORLD_SIZE": "2",
            "LLUTIL_CHECKPOINT_TIMEOUT": "30",
            "PYTHONPATH": str(ROOT),
        },
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert sorted(done.stdout.splitlines()) == ["all well 0", "all well 1"], done.stderr
