"""What trainings of each framework have in common: two lives of one job, and stops at many steps.

A training is a function ``fit(note, act, elastic, **options)``. It calls ``act(n)`` in the middle
of its step n and ``note`` with what it has learned in it. Ranks import this, so it imports little.
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
_SOON = 200.0

Fit = Callable[..., Any]


def one_life(fit: Fit, folder: Path, *, is_first: bool) -> None:
    """Train as a rank: in its first life without a callback before, and then until it is ended."""
    rank = os.environ["RANK"]
    handler = signal.getsignal(signal.SIGTERM)
    handlers = set()

    def act(step: int) -> None:
        handlers.add(signal.getsignal(signal.SIGTERM) is handler)
        if is_first and step == HELD:
            (folder / f"held-{rank}").touch()
            deadline = time.monotonic() + _SOON
            while not (folder / "go").exists():
                assert time.monotonic() < deadline
                time.sleep(0.01)

    said = {}
    if is_first:
        whole: list[Any] = []
        fit(whole.append, lambda step: None, elastic=False)
        said["whole"] = whole
    notes: list[Any] = []
    stopped = fit(notes.append, act, elastic=True)
    said |= {"notes": notes, "stopped": stopped, "handler kept": handlers == {True}}
    name = f"life-{1 if is_first else 2}-{rank}"
    (folder / f"{name}.part").write_text(json.dumps(said))
    (folder / f"{name}.part").rename(folder / name)


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
        os.environ["LLUTIL_CHECKPOINTS"] = str(folder / "-".join(map(str, row)) / "job")
        notes: list[Any] = []
        for stop in (*row, 0):
            worker._state.forget()
            flags = worker.events()
            flags.stop_all_tasks.clear()

            def act(step: int, stop: int = stop, flags: Any = flags) -> None:
                if step == stop:
                    flags.trigger_save_checkpoint.set()
                    flags.stop_all_tasks.set()

            stopped = fit(notes.append, act, elastic=True, **options)
            if stopped != bool(stop):
                found.append(f"{options}, stops {row}: stopped is {stopped} after {len(notes)}")
        if notes != whole:
            same = [one == other for one, other in zip(notes, whole, strict=False)]
            at = same.index(False) if False in same else len(same)
            found.append(
                f"{options}, stops {row}: after {at} of {len(whole)} notes came "
                f"{notes[at : at + 4]}, wanted {whole[at : at + 4]}"
            )
    return found
