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

__all__ = ["JOURNAL", "is_kept", "note_samples", "write"]

JOURNAL = "LLUTIL_CHAOS_JOURNAL"
"""The folder where it is noted which faults have struck a job, so that none strikes twice."""
_ROUND = "LLUTIL_ROUND"

_file: tuple[int, int] | None = None
"""The process that has a file, and its descriptor."""


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
    pid = os.getpid()
    if _file is None or _file[0] != pid:
        rank = os.environ.get("RANK", "0")
        path = Path(os.environ[JOURNAL], f"{time.monotonic_ns():020}-{rank}-{pid}")
        _file = pid, os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        names = {"world": "WORLD_SIZE", "node": "GROUP_RANK", "round": _ROUND}
        _write(
            {"rank": int(rank), **{key: os.environ.get(name, "") for key, name in names.items()}}
        )
    _write(line)


def _write(line: object) -> None:
    assert _file is not None
    os.write(_file[1], json.dumps(line).encode() + b"\n")
