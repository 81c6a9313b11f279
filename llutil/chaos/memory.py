"""Which faults have struck in this life of a job, so that none strikes twice.

A note is a file in a folder: beside the job's checkpoints, where all of its nodes find it, or in
the host's folder for temporary files, if the job has no place for checkpoints. This module may
import only the standard library, ``llutil.checkpoints`` and ``llutil.job_name``.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
from pathlib import Path

from llutil.checkpoints.committed import CHAOS_NOTES
from llutil.checkpoints.store import open_store
from llutil.job_name import job_name

__all__ = ["folder_of_notes", "forget", "note"]


def folder_of_notes(checkpoints: str, job: str, life: str = "") -> str:
    """The folder of the notes of ``job``. ``checkpoints`` is its folder of checkpoints, a path or a
    URI; empty for none. ``life`` names this life of it, if its launcher has a name for that: then
    it outlasts a success, as when a result was lost on its way.
    """
    own = hashlib.sha256(life.encode()).hexdigest()[:12] if life else "now"
    if checkpoints:
        return f"{checkpoints.rstrip('/')}/{CHAOS_NOTES}/{own}"
    name = job_name([job], [job, life])
    return f"{_host_folder()}/{name}"


def note(folder: str, name: str) -> bool:
    """Note that the fault ``name`` strikes now. False if it has struck before.

    :raises OSError: that cannot be known, or cannot be noted.
    """
    store = open_store(folder)
    if name in store.names(""):
        return False
    store.make("")
    store.put(name, b"", durable=True)
    return True


def forget(folder: str) -> None:
    """The life of the job is over: its next one is struck again.

    :raises OSError: the notes cannot be removed.
    """
    parent, _, name = folder.rpartition("/")
    store = open_store(parent)
    store.remove(name)
    if parent == _host_folder():
        with contextlib.suppress(OSError):  # another job has notes there
            Path(parent).rmdir()
    elif not store.names(""):
        above, _, name = parent.rpartition("/")
        open_store(above).remove(name)


def _host_folder() -> str:
    return str(Path(tempfile.gettempdir(), f"llutil-chaos-{os.geteuid()}"))
