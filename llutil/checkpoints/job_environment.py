"""What an agent needs of its job's checkpoints: where they lie, and what its ranks are told.

The folder of a job lies below ``checkpoint_path`` and has the job's name, so all tries of a job
have one folder on every host, and two jobs never do. This module may import only the standard
library, ``llutil.errors``, ``llutil.job_name`` and its own room.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Protocol

from llutil.checkpoints import retention
from llutil.checkpoints.committed import ATTEMPTS, look, success_name
from llutil.checkpoints.interval import interval
from llutil.checkpoints.marker import Checkpoint
from llutil.checkpoints.place import EVERY, FOLDER, KEEP, RESUME, job_of
from llutil.checkpoints.store import check_store, open_store
from llutil.errors import ConfigError, Problem
from llutil.job_name import is_by_chance, is_id, job_name

__all__ = [
    "check_checkpoint_path",
    "checkpoint_environment",
    "every_seconds",
    "newest_checkpoint",
    "note_success",
]

_log = logging.getLogger(__name__)


class _Config(Protocol):
    """The fields of a ``LaunchConfig`` that this module reads."""

    @property
    def run_id(self) -> str: ...
    @property
    def checkpoint_path(self) -> str | os.PathLike[str] | None: ...
    @property
    def checkpoint_job(self) -> str: ...
    @property
    def checkpoint_every(self) -> int | str | None: ...
    @property
    def checkpoint_keep(self) -> int: ...
    @property
    def resume(self) -> str: ...


def checkpoint_environment(config: _Config, run_id: str) -> dict[str, str]:
    """The variables for the ranks of the job ``run_id``; none without a ``checkpoint_path``.

    The name of the round is not among them: the agent sets it for each round.

    :raises ConfigError: the path begins with ``~`` and the name of nobody.
    """
    folder = _folder(config, run_id)
    if not folder:
        return {}
    variables = {FOLDER: folder, KEEP: str(config.checkpoint_keep), RESUME: config.resume}
    every = None if config.checkpoint_every is None else interval(config.checkpoint_every)
    if isinstance(every, int):
        variables[EVERY] = str(every)
    return variables


def every_seconds(config: _Config) -> float | None:
    """Seconds between two checkpoints that the agent asks for; None if there are none to ask for:
    ranks count steps by themselves.
    """
    if config.checkpoint_path is None or config.checkpoint_every is None:
        return None
    every = interval(config.checkpoint_every)
    return every.total_seconds() if isinstance(every, timedelta) else None


def check_checkpoint_path(config: _Config, run_id: str) -> None:
    """Make the folder of the job ``run_id``, and prove that it can be written into.

    It writes to the store, which may take long.

    :raises ConfigError: it cannot, or the scheme of the URI is not known here.
    :raises InfrastructureError: there is no space left at present.
    """
    folder = _folder(config, run_id)
    if not folder:
        return
    try:
        check_store(folder)
    except ConfigError as error:
        text = f"is {os.fspath(config.checkpoint_path or '')!r}: {error}"
        raise ConfigError(Problem("checkpoint_path", text)) from error


def note_success(folder: str, life: str = "", goes_on: Callable[[], None] = lambda: None) -> bool:
    """Write into a job's ``folder`` (``LLUTIL_CHECKPOINTS``) that the job has succeeded: its next
    life begins afresh, and does not go on from the checkpoints that are there now. A next launch in
    the same ``life`` does: whoever wanted the results may have lost them.

    It writes to the store, which may take long. Returns whether that is written; the log says why
    not. None of the job's ranks may run any more: their notes are removed, and what they saved of
    checkpoints that were never committed. ``goes_on`` is called between two requests; what it
    raises ends this.
    """
    store = open_store(folder)
    try:
        # Removed first: that works where nothing can be written, and makes space.
        store.remove(ATTEMPTS)
        goes_on()
        found = look(store, job_of(folder), life)
        goes_on()
        retention.remove(store, found.parts)
        goes_on()
        number = max((marker.number for marker in found.markers.values()), default=0)
        if number > found.succeeded:
            store.put(success_name(number), life.encode(), durable=True)
    except OSError as error:
        _log.warning(
            "it cannot be written into %r that the job has succeeded, so its next life may resume "
            "from its end: %s",
            store,
            error,
        )
        return False
    return True


def newest_checkpoint(folder: str) -> Checkpoint | None:
    """The newest checkpoint in a job's ``folder`` (``LLUTIL_CHECKPOINTS``), if there is one.

    It reads from the store, which may take long. If that fails, the log says why.
    """
    store = open_store(folder)
    try:
        for name, marker in look(store, job_of(folder)).markers.items():
            return Checkpoint(store.path(name), marker.step, marker.world_size)
    except OSError as error:
        _log.warning("nobody can say which checkpoint is the newest in %r: %s", store, error)
    return None


def _folder(config: _Config, run_id: str) -> str:
    """The job's own folder, as an absolute path or a URI; empty without a ``checkpoint_path``."""
    if config.checkpoint_path is None:
        return ""
    path = os.fspath(config.checkpoint_path)
    if "://" not in path:
        try:
            path = os.path.abspath(Path(path).expanduser())  # noqa: PTH100 - links stay links
        except RuntimeError:
            text = f"is {path!r}, but this host has no such user, or no home for it"
            raise ConfigError(
                Problem("checkpoint_path", f"{text}; give an absolute path")
            ) from None
    # Nobody finds the folder of a name by chance again.
    name = config.checkpoint_job or config.run_id or ("" if is_by_chance(run_id) else run_id)
    if not name:
        return path
    own = name if is_id(name) else job_name([name], [name])
    return f"{path}{own}" if path.endswith("://") else f"{path.rstrip('/')}/{own}"
