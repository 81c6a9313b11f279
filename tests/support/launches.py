"""Launches as the tests make them: one node, no restart, and an interval so long that only events
count.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from llutil.launcher.launch_agent import LaunchConfig, launch_agent

__all__ = ["config", "hide_torch", "is_alive", "launch", "wait_until"]


def config(nproc: int = 1, **fields: Any) -> LaunchConfig:
    """A configuration of one node; ``fields`` overrides."""
    values: dict[str, Any] = {"max_restarts": 0, "shutdown_timeout": 5, "monitor_interval": 1000}
    return LaunchConfig(1, 1, nproc, **(values | fields))


def launch(
    entrypoint: Callable[..., Any] | str | None, *args: Any, nproc: int = 1, **fields: Any
) -> dict[int, Any]:
    """Launch on this host, and give what came back."""
    return launch_agent(config(nproc, **fields), entrypoint, list(args))


def hide_torch(folder: Path) -> None:
    """Let who has ``folder`` on its PYTHONPATH find no torch, whose import would take seconds."""
    (folder / "torch.py").write_text("raise ImportError('no torch in this world')")


def is_alive(pid: int) -> bool:
    """Whether ``pid`` runs; a zombie does not."""
    with suppress(OSError):
        stat = Path(f"/proc/{pid}/stat").read_text()
        return stat.rpartition(")")[2].split()[0] not in "ZX"
    return False


def wait_until(condition: Callable[[], Any], seconds: float = 60.0) -> bool:
    """Poll ``condition``; whether it came true in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True
