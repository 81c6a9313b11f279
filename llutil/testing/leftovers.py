"""What a job has left behind on this host: processes, event pages, sockets, half checkpoints.

This module may import only the standard library, ``llutil.agent_socket``, ``llutil.checkpoints``
and ``llutil.system``.
"""

from __future__ import annotations

import os
import struct
import time
from collections.abc import Callable, Collection
from pathlib import Path

from llutil.agent_socket.folder import socket_names
from llutil.checkpoints.committed import ATTEMPTS, look
from llutil.checkpoints.store import open_store
from llutil.system.process_table import (
    EXEC_LONGEST,
    all_processes,
    command_of,
    environment_has,
)

__all__ = ["half_checkpoints", "left_behind", "processes_with"]

_PAGES = Path("/dev/shm")  # noqa: S108 - where they are
# Where an event page says which process made it.
_CREATOR, _CREATOR_AT = struct.Struct("=Q"), 16
# Seconds between two looks.
_PAUSE = 0.05


def left_behind(
    mark: str, agents: Collection[int], temporary: Path, checkpoints: Path, seconds: float
) -> list[str]:
    """What is there yet after so many ``seconds`` at most, each in words.

    :param mark: a variable that the processes of the job have, as ``NAME=value``.
    :param agents: the pids of its agents.
    :param temporary: their folder for temporary files.
    :param checkpoints: the job's folder of checkpoints.
    """
    looks: list[Callable[[], list[str]]] = [
        lambda: [f"process {pid}: {command_of(pid)}" for pid in processes_with(mark)],
        lambda: [
            f"event page {path}" for path in _PAGES.glob("llutil-events-*") if _by(path, agents)
        ],
        lambda: [f"socket {one.path}" for one in socket_names() if one.pid in agents],
        lambda: [f"file {path}" for path in temporary.glob("llutil*") if "_logs_" not in path.name],
        lambda: half_checkpoints(checkpoints),
    ]
    deadline = time.monotonic() + seconds
    while (found := [text for look_at in looks for text in look_at()]) and (
        time.monotonic() < deadline
    ):
        time.sleep(_PAUSE)
    return found


def processes_with(mark: str) -> dict[int, int]:
    """The processes that were started with that variable, as ``NAME=value``: when each started, in
    the kernel's ticks, by its pid.
    """
    until = time.monotonic() + EXEC_LONGEST
    return {
        pid: stat.start
        for pid, stat in all_processes().items()
        if pid != os.getpid()
        and stat.state not in "ZX"
        and environment_has(pid, (mark.encode(),), until=until)
    }


def _by(page: Path, agents: Collection[int]) -> bool:
    try:
        (creator,) = _CREATOR.unpack_from(page.read_bytes(), _CREATOR_AT)
    except (OSError, struct.error):
        return False
    return creator in agents


def half_checkpoints(folder: Path) -> list[str]:
    """The checkpoints in a job's folder that do not count, and notes of saves that never ended,
    each in words.
    """
    if not folder.is_dir():
        return []
    store = open_store(str(folder))
    found = look(store, folder.name)
    wrong = [f"half a checkpoint, {folder / name}" for name in found.parts]
    wrong += [f"{folder / name}: {why}" for name, why in found.ignored.items()]
    return wrong + [f"a note of a save, {folder / ATTEMPTS / one}" for one in store.names(ATTEMPTS)]
