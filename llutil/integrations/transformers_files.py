"""Checkpoints that the Trainer of Transformers writes, in the job's folder.

This module does not import Transformers, and knows one name that Transformers (5.24) does not
document: ``_save_checkpoint``, which also its own callback for SIGTERM calls.
"""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

from llutil.errors import ConfigError
from llutil.worker import Checkpoint

__all__ = ["checkpoint_path", "save_checkpoint", "warn_of_other_steps"]

_log = logging.getLogger(__name__)


def checkpoint_path(done: Checkpoint) -> str:
    """What ``trainer.train`` resumes from."""
    return f"{done.path}/checkpoint-{done.step}"


def save_checkpoint(trainer: Any, folder: str) -> None:
    """Let the Trainer write into ``folder``, all that it needs to resume, for itself alone.

    :raises ConfigError: that is no folder; the Trainer writes files.
    """
    if "://" in folder:
        raise ConfigError(
            f"checkpoints lie in {folder}, and Transformers writes only files: wanted a folder "
            "that all hosts share as checkpoint_path"
        )
    args = trainer.args
    ours = {
        "output_dir": str(folder),
        "push_to_hub": False,
        "save_only_model": False,
        # With another one the Trainer would take what it writes here for its best checkpoint. Of
        # one best checkpoint, ``save_total_limit=1`` deletes all others at the training's end.
        "save_strategy": type(args.save_strategy)("no"),
    }
    own = {name: getattr(args, name) for name in ours}
    try:
        for name, value in ours.items():
            setattr(args, name, value)
        trainer._save_checkpoint(trainer.model, trial=None)  # noqa: SLF001
    finally:
        for name, value in own.items():
            setattr(args, name, value)


def warn_of_other_steps(done: Checkpoint | None, args: Any, state: Any) -> None:
    """Say it if another number of ranks makes another number of steps of the training."""
    if not done or done.step != state.global_step or done.world_size == args.world_size:
        return
    saved = Path(checkpoint_path(done), "trainer_state.json").read_text()
    before = json.loads(saved)["max_steps"]
    if before != state.max_steps:
        _log.warning(
            "this training has %d steps with %d ranks and had %d with %d, so its position and its "
            "schedule shift: keep the batch of all ranks together as it is, by "
            "gradient_accumulation_steps",
            state.max_steps,
            args.world_size,
            before,
            done.world_size,
        )
