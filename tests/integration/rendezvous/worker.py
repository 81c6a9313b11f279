"""A worker that costs nothing: it says who it is, and does what files tell it.

``succeed`` or ``succeed-NODE``: end with 0. ``fail-NODE``: remove that file, and end with 1.
Imports the standard library only.
"""

from __future__ import annotations

import json
import os
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

__all__ = ["main", "say"]

_STEP = 0.02  # seconds between two looks


def say(folder: str, **more: Any) -> None:
    """Write a line on who this worker is; lines of this size are written at once, or not at all."""
    line = {
        "node": os.environ["NODE"],
        "pid": os.getpid(),
        "rank": int(os.environ["RANK"]),
        "world": int(os.environ["WORLD_SIZE"]),
        "nodes": int(os.environ["GROUP_WORLD_SIZE"]),
        "restarts": int(os.environ["TORCHELASTIC_RESTART_COUNT"]),
        "store": f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}",
        **more,
    }
    with Path(folder, "workers").open("a") as lines:
        lines.write(json.dumps(line) + "\n")


def main(folder: str) -> int:
    """Wait for a file that says how to end; the exit code."""
    say(folder)
    ends = [Path(folder, "succeed"), Path(folder, f"succeed-{os.environ['NODE']}")]
    while not any(end.exists() for end in ends):
        with suppress(FileNotFoundError):
            Path(folder, f"fail-{os.environ['NODE']}").unlink()
            return 1
        time.sleep(_STEP)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
