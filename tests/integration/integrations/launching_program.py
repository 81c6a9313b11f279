"""A program that launches a training, as a process of its own, so that a signal can end it. Its
ranks are forked from it, which has the framework imported.
"""

from __future__ import annotations

import logging
from importlib import import_module
from pathlib import Path
from typing import Any

from llutil.launcher.config import LaunchConfig
from llutil.launcher.launch_agent import launch_agent

__all__ = ["main"]


def _life(training: str, folder: str) -> None:
    module = import_module(f"tests.integration.integrations.{training}_training")
    module.life(folder, is_first=True)


def main(training: str, folder: str, *, is_first: bool) -> None:
    """Launch two ranks: a function's first life, or a script's second one."""
    logging.basicConfig(format="%(message)s", level=logging.INFO)
    script = str(Path(__file__).with_name(f"{training}_training.py"))
    entrypoint: Any = _life if is_first else script
    args = [training, folder] if is_first else [folder]
    config = LaunchConfig(
        1,
        1,
        2,
        run_id="job",
        checkpoint_path=f"{folder}/checkpoints",
        max_restarts=0,
        shutdown_timeout=60,
        start_method="fork",
    )
    launch_agent(config, entrypoint, args)
