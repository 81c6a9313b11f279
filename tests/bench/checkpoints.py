"""How long training stands still for a checkpoint: torch.save, and what is around it.

One process saves 256 MiB below the folder for temporary files, each time into a new file, and
keeps three. ``async_save`` copies the state and writes it behind, so what it costs at once is the
copy. What our context costs beside the writing is its own row: an empty checkpoint. Each figure is
the best of several runs, since noise only ever adds.
"""

from __future__ import annotations

import itertools
import os
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

from llutil import worker

_BYTES, _RUNS = 256 * 2**20, 9


def main() -> None:
    """Print the table."""
    here = Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        try:
            rows = _rows()
        finally:
            os.chdir(here)
    print("a checkpoint of 256 MiB, one process: how long training stands still")
    for name, seconds in rows:
        print(f"  {name:<58} {seconds * 1e3:>10,.1f} ms")


def _rows() -> list[tuple[str, float]]:
    import torch
    import torch.distributed.checkpoint as dcp

    warnings.simplefilter("ignore")  # torch warns that there is no process group
    state = {f"layer-{number}": torch.ones(_BYTES // 4 // 16) for number in range(16)}

    numbers = itertools.count()

    def new_file() -> str:
        number = next(numbers)
        Path(f"plain-{number - 3}.pt").unlink(missing_ok=True)
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

    saves: dict[str, Callable[[], None]] = {
        "torch.save, not waited for the disk": plain,
        "torch.save and fsync": synced,
        "worker.checkpoint with nothing in it": nothing,
        "worker.checkpoint with torch.save": saved,
        "worker.checkpoint with dcp.save": dcp_saved,
        "worker.checkpoint with dcp.async_save, folder.after": behind,
    }
    taken: dict[str, list[float]] = {name: [] for name in saves}
    for _ in range(_RUNS):  # in turn, so that a busy moment meets all of them
        for name, save in saves.items():
            nothing()  # waits for what the one before has left to do
            begun = time.perf_counter()
            save()
            taken[name].append(time.perf_counter() - begun)
    nothing()
    return [(name, min(seconds)) for name, seconds in taken.items()]


if __name__ == "__main__":
    main()
