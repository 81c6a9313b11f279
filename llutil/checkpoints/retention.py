"""Remove what a job does not need any more: old checkpoints, and parts that nobody committed.

It removes only what this job's ranks made: folders whose marker is this job's, folders without a
marker that are named as ours, and notes. This module may import only the standard library and its
own room.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable

from llutil.checkpoints.committed import ATTEMPTS, Found
from llutil.checkpoints.store import Store

__all__ = ["RESUMED", "Removal", "notes", "old", "parts", "remove"]

RESUMED = "resume-"
"""How the folders of the notes begin that say what a round resumes from."""
_log = logging.getLogger(__name__)


def old(found: Found, keep: int) -> list[str]:
    """The folders of all committed checkpoints but the ``keep`` newest."""
    return list(found.markers)[keep:]


def parts(found: Found, attempt: str) -> list[str]:
    """The folders that were never committed, but those of the ``attempt`` that is under way."""
    return [name for name in found.parts if not name.endswith(attempt)]


def notes(store: Store, *needed: str) -> list[str]:
    """The folders of notes about attempts, but those of the attempts that are ``needed``. What a
    round resumes from is not among them: only a later round knows that nobody asks any more.
    """
    there = sorted(set(store.names(ATTEMPTS)).difference(needed))
    return [f"{ATTEMPTS}/{name}" for name in there if not name.startswith(RESUMED)]


def remove(store: Store, folders: Iterable[str]) -> None:
    """Remove these folders. What cannot be removed stays, and the log says why.

    The notes of a checkpoint go before its folder, so that a rank 0 of an earlier round which
    still lives does not commit what is left of it.
    """
    for folder in folders:
        try:
            store.remove(f"{ATTEMPTS}/{folder.rpartition('-')[2]}")
            store.remove(folder)
        except OSError as error:
            _log.warning("%s cannot be removed, and stays: %s", store.path(folder), error)


class Removal:
    """Removes in a thread of its own what a checkpoint has made needless: training goes on, and
    large folders take long. Whoever begins the next checkpoint waits for it.
    """

    def __init__(self) -> None:
        self._thread: threading.Thread | None = None

    def start(self, store: Store, folders: Iterable[str]) -> None:
        """Begin to remove these folders, when what was begun before is over."""
        # A daemon, since a store that never answers must not keep the process from its end. Who
        # ends it waits for as long as is reasonable.
        thread = threading.Thread(
            target=remove, args=(store, folders), name="retention", daemon=True
        )
        try:
            thread.start()
        except RuntimeError:  # no thread is to be had
            remove(store, folders)
            return
        self._thread = thread  # not before: nobody can wait for one that has not started

    def is_over(self, seconds: float) -> bool:
        """Wait until all is removed, for so long at most. Whether it is."""
        if self._thread is None:
            return True
        self._thread.join(seconds)
        return not self._thread.is_alive()
