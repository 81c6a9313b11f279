"""A program that launches a training, as a process of its own, so that a signal can end it. It does
not import the framework: only its ranks do.
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


def main(training: str, folder: str, start_method: str) -> None:
    """Launch two ranks: a function's first life by ``start_method``, or by ``script`` a script's
    second one.
    """
    logging.basicConfig(format="%(message)s", level=logging.INFO)
    entrypoint: Any = _life
    args: list[Any] = [training, folder]
    fields: dict[str, Any] = {"start_method": start_method}
    if start_method == "script":
        entrypoint = str(Path(__file__).with_name(f"{training}_training.py"))
        args, fields = ["life", folder, "False"], {}
    config = LaunchConfig(
        1,
        1,
        2,
        run_id="job",
        checkpoint_path=f"{folder}/checkpoints",
        max_restarts=0,
        shutdown_timeout=60,
        **fields,
    )
    launch_agent(config, entrypoint, args)
