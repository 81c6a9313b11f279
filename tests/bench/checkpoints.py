"""How long training stands still for a checkpoint of 256 MiB: torch.save and torch's DCP, and what
is around them.

One process saves 256 MiB below the folder for temporary files, each time into a new file, and
keeps three. ``async_save`` copies the state and writes it behind, so what it costs at once is the
copy. What our context costs beside the writing is a figure of its own: an empty checkpoint. Its
marker is written to the disk, so ``torch.save`` with ``fsync`` is the peer of one that is waited
for.
"""

from __future__ import annotations

import itertools
import os
import shutil
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from llutil import worker
from tests.bench.report.measurement import Measurement, Sample

__all__ = ["measure"]

_BYTES, _RUNS = 256 * 2**20, 9


_SYNCED, _PLAIN, _DCP, _ASYNC = (
    "torch.save and fsync",
    "torch.save, not waited for the disk",
    "dcp.save",
    "dcp.async_save",
)
_PEERS = {
    "torch-save": ("worker.checkpoint with torch.save", _SYNCED),
    "dcp-save": ("worker.checkpoint with dcp.save", _DCP),
    "dcp-async": ("worker.checkpoint with dcp.async_save and folder.after", _ASYNC),
    "empty": ("worker.checkpoint with nothing in it", ""),
    "page-cache": (_PLAIN, _SYNCED),
}
"""What each figure's two sides are; the last one is torch's alone."""


def measure() -> Iterator[Measurement]:
    """How long each kind of checkpoint takes its caller."""
    here = Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        try:
            taken = _taken()
        finally:
            os.chdir(here)
    for name, (ours, peer) in _PEERS.items():
        yield Measurement(
            name=name,
            what=ours,
            unit="s",
            ours=Sample.of(taken[ours]),
            peer=Sample.of(taken[peer]) if peer else None,
            peer_name=peer,
        )


def _taken() -> dict[str, list[float]]:
    """Seconds of each run, by what was saved how."""
    import torch
    import torch.distributed.checkpoint as dcp

    warnings.simplefilter("ignore")  # torch warns that there is no process group
    state = {f"layer-{number}": torch.ones(_BYTES // 4 // 16) for number in range(16)}

    numbers = itertools.count()
    begun: list[Any] = []

    def new_file() -> str:
        number = next(numbers)
        old = Path(f"plain-{number - 3}.pt")
        if old.is_dir():  # DCP's
            shutil.rmtree(old)
        old.unlink(missing_ok=True)
        return f"plain-{number}.pt"

    def plain() -> None:
        torch.save(state, new_file())

    def synced() -> None:
        with open(new_file(), "wb") as file:  # noqa: PTH123 - what users write
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())

    def nothing() -> None:
        with worker.checkpoint(1):
            pass

    def saved() -> None:
        with worker.checkpoint(1) as folder:
            torch.save(state, f"{folder}/state.pt")

    def dcp_saved() -> None:
        with worker.checkpoint(1) as folder:
            dcp.save(state, checkpoint_id=folder)

    def behind() -> None:
        with worker.checkpoint(1) as folder:
            folder.after(dcp.async_save(state, checkpoint_id=folder))

    def dcp_alone() -> None:
        dcp.save(state, checkpoint_id=new_file())

    def async_alone() -> None:
        begun.append(dcp.async_save(state, checkpoint_id=new_file()))

    saves: dict[str, Callable[[], None]] = {
        _PLAIN: plain,
        _SYNCED: synced,
        _DCP: dcp_alone,
        _ASYNC: async_alone,
        "worker.checkpoint with nothing in it": nothing,
        "worker.checkpoint with torch.save": saved,
        "worker.checkpoint with dcp.save": dcp_saved,
        "worker.checkpoint with dcp.async_save and folder.after": behind,
    }
    taken: dict[str, list[float]] = {name: [] for name in saves}
    for _ in range(_RUNS):  # in turn, so that a busy moment meets all of them
        for name, save in saves.items():
            nothing()  # waits for what the one before has left to do
            while begun:
                begun.pop().result()
            os.sync()  # else one pays for what another has left in the page cache
            at = time.perf_counter()
            save()
            taken[name].append(time.perf_counter() - at)
    nothing()
    return taken
