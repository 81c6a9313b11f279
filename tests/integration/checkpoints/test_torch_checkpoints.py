"""torch's own checkpoints inside the context: saved at once, behind, and behind without a word."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from llutil.checkpoints.place import FOLDER, ROUND

pytestmark = pytest.mark.launch

ROOT = Path(__file__).parents[3]
PROGRAM = """
import logging, os, sys, threading, warnings
import torch, torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint import FileSystemWriter
from llutil import worker
from llutil.checkpoints import committed
from llutil.checkpoints.store import open_store

warnings.simplefilter("ignore")
rank = 0 if os.fork() else 1
os.environ["RANK"] = str(rank)
dist.init_process_group("gloo", init_method=f"file://{sys.argv[1]}", rank=rank, world_size=2)
behind = dist.new_group(backend="gloo")  # its collectives do not meet the main thread's

def state(step):
    return {"weight": torch.full((4,), float(step)), "mine": {f"rank-{rank}": torch.tensor(rank)}}

def newest():
    found = committed.newest(open_store(os.environ["LLUTIL_CHECKPOINTS"]), "job")
    return found and found.step

with worker.checkpoint(1) as folder:
    dcp.save(state(1), checkpoint_id=folder)
assert newest() == 1

go, write_data = threading.Event(), FileSystemWriter.write_data
def slow_write(self, *arguments):
    assert go.wait(60)
    return write_data(self, *arguments)
FileSystemWriter.write_data = slow_write
with worker.checkpoint(2) as folder:
    folder.after(dcp.async_save(state(2), checkpoint_id=folder, process_group=behind))
dist.barrier()
assert newest() == 1, newest()
dist.barrier()
go.set()
with worker.checkpoint(3) as folder:
    assert newest() == 2, newest()
    dcp.async_save(state(3), checkpoint_id=folder, process_group=behind)
assert newest() == 3, newest()

def broken_write(self, *arguments):
    raise OSError(28, "No space left on device")
FileSystemWriter.write_data = broken_write
def refused(save):
    try:
        with worker.checkpoint(4) as folder:
            save(folder)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
print(refused(lambda folder: dcp.save(state(4), checkpoint_id=folder)), file=sys.stderr)
print(refused(lambda folder: dcp.async_save(
    state(4), checkpoint_id=folder, process_group=behind
)), file=sys.stderr)
FileSystemWriter.write_data = write_data
assert newest() == 3, newest()

loaded = state(0)
dcp.load(loaded, checkpoint_id=worker.resume().path)
assert loaded["weight"].tolist() == [3.0] * 4
os.write(1, b"all well %d\\n" % rank)  # in one piece, unlike print
dist.barrier()
dist.destroy_process_group()
if rank == 0:
    os._exit(os.waitstatus_to_exitcode(os.wait()[1]))
os._exit(0)
"""


def test_torchs_checkpoints_are_committed_after_their_last_byte(temporary: Path) -> None:
    environment = os.environ | {
        FOLDER: str(temporary / "job"),
        ROUND: "r",
        "WORLD_SIZE": "2",
        "PYTHONPATH": str(ROOT),
    }
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(temporary / "store")],
        env=environment,
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert sorted(done.stdout.splitlines()) == ["all well 0", "all well 1"], done.stderr
    assert "No space left on device" in done.stderr
    assert "it left no .metadata" in done.stderr
    assert "give what it returns to folder.after(...)" in done.stderr
