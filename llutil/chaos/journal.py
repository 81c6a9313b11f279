"""What the ranks of a job did, written down for a test: their steps, their samples, their faults.

Each process of a rank has a file of its own, one line of JSON after the other, in the folder that
the environment of the agent names. Without that variable nothing is written. This module may import
only the standard library.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable
from pathlib import Path
from typing import IO

__all__ = ["JOURNAL", "is_kept", "note_samples", "write"]

JOURNAL = "LLUTIL_CHAOS_JOURNAL"
"""The variable with the folder."""
_ROUND = "LLUTIL_ROUND"

_file: tuple[int, IO[str]] | None = None


def is_kept() -> bool:
    """Whether somebody wants to know."""
    return JOURNAL in os.environ


def note_samples(samples: Iterable[int], epoch: int = 0) -> None:
    """Note that this rank trains on these samples in the step that it reports next. A training
    without ``ElasticSampler``, which does it by itself, may call this, so that a test under chaos
    finds samples that were lost or taken twice. Outside of such a test it does nothing.
    """
    if is_kept():
        write(samples=[int(one) for one in samples], epoch=epoch)


def write(**line: object) -> None:
    """Write a line, whole and at once, so that a kill leaves no half of one."""
    global _file  # noqa: PLW0603 - one file a process
    if _file is None or _file[0] != os.getpid():
        rank = os.environ.get("RANK", "0")
        path = Path(os.environ[JOURNAL], f"{time.monotonic_ns():020}-{rank}-{os.getpid()}")
        _file = os.getpid(), path.open("a", buffering=1)
        names = {"world": "WORLD_SIZE", "node": "GROUP_RANK", "round": _ROUND}
        first = {key: os.environ.get(name, "") for key, name in names.items()}
        _file[1].write(json.dumps({"rank": int(rank), **first}) + "\n")
    _file[1].write(json.dumps(line) + "\n")
