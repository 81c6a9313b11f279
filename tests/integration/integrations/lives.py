"""What trainings of each framework have in common: two lives of one job, and stops at many steps.

A training is a function ``fit(note, act, elastic, **options)``. It calls ``act(n)`` in the middle
of its step n, ``act(0)`` when it stops training, and ``note`` with what it has learned. Ranks
import this, so it imports little.
"""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from llutil import worker

__all__ = ["HELD", "Fit", "differences", "one_life"]

HELD = 8
"""The step in which the first life waits, in its second epoch."""
_SOON = 60.0

Fit = Callable[..., Any]


def one_life(fit: Fit, folder: Path, *, is_first: bool) -> None:
    """Train as a rank: in its first life without a callback before, and then until it is ended.

    Rank 1 ends then when rank 0 has ended: ranks of a node that has to go cannot count on others.
    """
    rank = os.environ["RANK"]
    name = f"life-{1 if is_first else 2}"
    handler = signal.getsignal(signal.SIGTERM)
    handlers = set()

    def act(step: int) -> None:
        if step:
            handlers.add(signal.getsignal(signal.SIGTERM) is handler)
        if is_first and step == HELD:
            (folder / f"held-{rank}").touch()
            _await(folder / "go")
        elif is_first and not step and rank == "1":
            _await(folder / f"{name}-0")

    said = {}
    if is_first:
        whole: list[Any] = []
        fit(whole.append, lambda step: None, elastic=False)
        said["whole"] = whole
    notes: list[Any] = []
    stopped = fit(notes.append, act, elastic=True)
    said |= {"notes": notes, "stopped": stopped, "handler kept": handlers == {True}}
    (folder / f"{name}-{rank}.part").write_text(json.dumps(said))
    (folder / f"{name}-{rank}.part").rename(folder / f"{name}-{rank}")


def _await(path: Path) -> None:
    deadline = time.monotonic() + _SOON
    while not path.exists():
        assert time.monotonic() < deadline, path
        time.sleep(0.01)


def differences(
    fit: Fit, folder: Path, stops: Sequence[Sequence[int]], **options: Any
) -> list[str]:
    """Train once without a stop, and then with each of these rows of stops, all lives of a job in
    this one process: what is not the same, in words.
    """
    whole: list[Any] = []
    fit(whole.append, lambda step: None, elastic=False, **options)
    found = []
    for row in stops:
        job = folder / "-".join(map(str, row)) / "job"
        os.environ["LLUTIL_CHECKPOINTS"] = str(job)
        notes: list[Any] = []
        for stop in (*row, 0):
            worker._state.forget()
            flags = worker.events()
            flags.stop_all_tasks.clear()

            def act(step: int, stop: int = stop, flags: Any = flags) -> None:
                if step and step == stop:
                    flags.trigger_save_checkpoint.set()
                    flags.stop_all_tasks.set()

            stopped = fit(notes.append, act, elastic=True, **options)
            if stopped != bool(stop):
                found.append(f"{options}, stops {row}: stopped is {stopped} after {len(notes)}")
        found += [f"{options}: {late}" for late in _late_files(job)]
        if notes != whole:
            same = [one == other for one, other in zip(notes, whole, strict=False)]
            at = same.index(False) if False in same else len(same)
            found.append(
                f"{options}, stops {row}: after {at} of {len(whole)} notes came "
                f"{notes[at : at + 4]}, wanted {whole[at : at + 4]}"
            )
    return found


def _late_files(job: Path) -> list[str]:
    """The files that came into a checkpoint after it counted."""
    late = []
    for marker in job.glob("step-*/COMMITTED"):
        counted = {
            marker,
            *(marker.parent / name for name in json.loads(marker.read_text())["files"]),
        }
        there = {path for path in marker.parent.rglob("*") if path.is_file()}
        late += [f"{path} came after the checkpoint counted" for path in there - counted]
    return late
