"""What workers of these DAGs do. It imports no Airflow, which would take each of them some
seconds.
"""

from __future__ import annotations

import os
import secrets
import tempfile
import time
from pathlib import Path


def identity() -> dict[str, str]:
    """Who this rank is, and which launch it belongs to."""
    return {
        "launch": os.environ["TORCHELASTIC_RUN_ID"],
        "rank": os.environ["RANK"],
        "world_size": os.environ["WORLD_SIZE"],
        "try_number": os.environ["AIRFLOW_CTX_TRY_NUMBER"],
    }


def stay(run_id: str) -> dict[str, str]:
    """Work until the run is let go, by a file that a test makes."""
    who = identity()
    print(f"rank {who['rank']} in a world of {who['world_size']}", flush=True)
    await_go(run_id)
    return {"drawn": secrets.token_hex(8), **who}


def save(run_id: str) -> None:
    """What a worker does that is asked to end: longer than Airflow waits before SIGKILL, and until
    the run is let go.
    """
    time.sleep(7)
    await_go(run_id)
    print("checkpoint saved", flush=True)


def await_go(run_id: str) -> None:
    """Wait until the run is let go."""
    while not _named("go", run_id).exists():
        time.sleep(0.1)


def meet(name: str, count: int, seconds: float) -> None:
    """Wait until ``count`` processes have come here under this name."""
    folder = _named("meeting", name)
    folder.mkdir(exist_ok=True)
    (folder / secrets.token_hex(8)).touch()
    deadline = time.monotonic() + seconds
    while len(list(folder.iterdir())) < count:
        if time.monotonic() > deadline:
            raise TimeoutError(f"{count} were to come to {folder}")
        time.sleep(0.1)


def _named(kind: str, name: str) -> Path:
    return Path(tempfile.gettempdir(), f"{kind}-{name.replace(':', '-')}")
