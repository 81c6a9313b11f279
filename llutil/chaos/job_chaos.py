"""What an agent does with the faults of its job: it says them, and tells its ranks.

This module may import only the standard library, ``llutil.checkpoints.place``,
``llutil.system.process_table`` and the room.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from typing import Any, Protocol

from llutil.chaos.fault_texts import all_faults
from llutil.chaos.faults import Cut, Hang
from llutil.chaos.journal import JOURNAL
from llutil.chaos.memory import folder_of_notes, forget
from llutil.chaos.rank_faults import RankFaults
from llutil.checkpoints.place import LIFE
from llutil.system.process_table import stat_of

__all__ = ["JobChaos"]

_log = logging.getLogger(__name__)


class _Config(Protocol):
    """The fields of a ``LaunchConfig`` that this module reads."""

    @property
    def chaos(self) -> Any: ...
    @property
    def checkpoint_job(self) -> str: ...
    @property
    def hang_timeout(self) -> object: ...


class JobChaos:
    """The faults of the job ``run_id``, whose ``config`` was checked. ``checkpoints`` is its folder
    of checkpoints, a path or a URI; empty for none.
    """

    def __init__(self, config: _Config, run_id: str, checkpoints: str) -> None:
        life = os.environ.get(LIFE, "")
        self._faults = tuple(all_faults(config.chaos))
        self._never_found = config.hang_timeout is None
        self._on_host = not checkpoints
        self._lasts = bool(life and checkpoints)
        # Tries of an Airflow task have run ids of their own, and share this name.
        self._folder = folder_of_notes(checkpoints, config.checkpoint_job or run_id, life)

    @property
    def cuts(self) -> bool:
        """Whether a node is to be cut from its store."""
        return any(isinstance(one, Cut) for one in self._faults)

    def environment(self) -> Mapping[str, str]:
        """The variables for the ranks; none if there are no faults. Says which there are."""
        if not self._faults and JOURNAL not in os.environ:
            return {}
        if self._faults:
            _log.warning(
                "CHAOS: %d faults strike this job on purpose: %s; which of them have struck is "
                "noted in %s",
                len(self._faults),
                ", ".join(map(str, self._faults)),
                self._folder,
            )
        if self._never_found and any(isinstance(one, Hang) for one in self._faults):
            _log.warning("CHAOS: with hang_timeout=None nobody will find the rank that hangs")
        stat = stat_of(os.getpid())
        told = RankFaults(
            faults=self._faults,
            memory=self._folder,
            agent=os.getpid(),
            agent_start=stat.start if stat is not None else 0,
        )
        return told.variable()

    def leave(self) -> None:
        """The launch ends, and nobody will use its run id again."""
        if self._on_host:  # else its checkpoints may be found without that, and so are the notes
            self.forget()

    def forget(self) -> None:
        """The job has succeeded: its next life is struck again."""
        if not self._faults or self._lasts:
            return
        try:
            forget(self._folder)
        except OSError as error:
            _log.warning("notes about faults that have struck stay: %s", error)
