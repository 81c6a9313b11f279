"""What the ranks of a round resume from: rank 0 looks once, and leaves a note for the others.

So all ranks get the same checkpoint, or none, also if another one is committed while they ask. The
note lies among those of the attempts::

    .attempts/resume-<round>/found    JSON: the checkpoint's folder, step and world size, or null

First rank 0 removes the notes of earlier rounds, so that no rank 0 of one which still lives commits
anything after that: it looks for what its own round has decided. So a round of one rank, and one
that is to resume from nothing, write a note too.

This module may import the standard library, ``llutil.errors`` and its own room.
"""

from __future__ import annotations

import json
import logging
import time

from llutil.checkpoints import retention
from llutil.checkpoints.committed import ATTEMPTS, look, newest
from llutil.checkpoints.marker import Checkpoint
from llutil.checkpoints.place import Place
from llutil.checkpoints.store import Store
from llutil.errors import CheckpointError, CheckpointStoreError

__all__ = ["fence_of_round", "resume_of_round"]

_VERSION = 1
_log = logging.getLogger(__name__)


def resume_of_round(store: Store, place: Place) -> Checkpoint | None:
    """The checkpoint that all ranks of the round go on from; None if they begin afresh.

    :raises CheckpointError: rank 0 has not said it in time, or the store refuses.
    """
    try:
        if not _has_note(place):
            return _found(store, place)
        if place.rank == 0:
            return _decide(store, place)
        return None if place.resume == "never" else _wait(store, place)
    except OSError as error:
        raise _unusable(store, error) from error


def fence_of_round(store: Store, place: Place) -> str:
    """The name, among the notes, of what rank 0 has decided for this round; "" if it is not there,
    or this is another rank.

    :raises CheckpointStoreError: the store refuses.
    """
    if not _has_note(place) or place.rank:
        return ""
    try:
        return _folder(place) if _folder(place) in store.names(ATTEMPTS) else ""
    except OSError as error:
        raise _unusable(store, error) from error


def _has_note(place: Place) -> bool:
    """Whether others may write into the folder beside this round. The agent of one node has ended
    all ranks that could; and a process without an agent only looks.
    """
    return bool(place.round) and not place.is_default


def _unusable(store: Store, error: OSError) -> CheckpointStoreError:
    return CheckpointStoreError(
        f"nobody knows what to resume from: {store!r} cannot be used: {error}"
    )


def _found(store: Store, place: Place) -> Checkpoint | None:
    if place.resume == "never":
        return None
    return newest(store, place.job, succeeded=place.resume == "always", life=place.life)


def _decide(store: Store, place: Place) -> Checkpoint | None:
    """What rank 0 has decided in this round, now or before."""
    try:
        decided = _read(store, place)
    except (FileNotFoundError, NotADirectoryError):
        pass
    except ValueError as error:
        _log.warning("%s is written again", error)
    else:
        # An earlier process of a rank alone may have saved since; nobody else asks.
        return decided if place.world_size > 1 else _found(store, place)
    own = {place.attempt(1), _folder(place)}
    earlier = [f"{ATTEMPTS}/{name}" for name in sorted(set(store.names(ATTEMPTS)) - own)]
    retention.remove(store, earlier)
    found = _found(store, place)
    try:
        _write_or_make_room(store, place, found)
    except OSError as error:
        if place.world_size > 1:
            raise
        _log.warning("a later round may not shut out this one: %s", error)
    return found


def _write_or_make_room(store: Store, place: Place, found: Checkpoint | None) -> None:
    try:
        _write(store, place, found)
    except OSError:
        # What an earlier round could not complete may be what fills the disk.
        parts = retention.parts(look(store, place.job), place.attempt(1))
        if not parts:
            raise
        retention.remove(store, parts)
        _write(store, place, found)


def _wait(store: Store, place: Place) -> Checkpoint | None:
    """What rank 0 decides."""
    deadline = time.monotonic() + place.timeout
    pause, longest = store.poll
    why = ""
    while True:
        try:
            return _read(store, place)
        except (FileNotFoundError, NotADirectoryError):
            pass
        except ValueError as error:
            if not why:
                _log.warning("%s is ignored", error)
            why = f"; {error}"
        if time.monotonic() >= deadline:
            raise CheckpointError(
                f"rank 0 has not called worker.resume within {place.timeout:g} s, so rank "
                f"{place.rank} does not know what to resume from{why}. Rank 0 decides for all "
                "ranks of the round: where one rank calls worker.resume, rank 0 has to"
            )
        time.sleep(pause)
        pause = min(1.5 * pause, longest)


def _folder(place: Place) -> str:
    return f"{retention.RESUMED}{place.decision()}"


def _note(place: Place) -> str:
    return f"{ATTEMPTS}/{_folder(place)}/found"


def _write(store: Store, place: Place, found: Checkpoint | None) -> None:
    """Write the note. It names the folder alone, which may lie elsewhere on another host."""
    told = None
    if found is not None:
        folder = found.path.rpartition("/")[2]
        told = {"folder": folder, "step": found.step, "world_size": found.world_size}
    store.make(f"{ATTEMPTS}/{_folder(place)}")
    store.put(_note(place), json.dumps({"version": _VERSION, "found": told}).encode())


def _read(store: Store, place: Place) -> Checkpoint | None:
    """:raises ValueError: the note is not whole; the text names it."""
    text = store.get(_note(place))
    try:
        note = json.loads(text)
        if note["version"] != _VERSION:
            raise ValueError
        found = note["found"]
        if found is None:
            return None
        folder, step, size = found["folder"], found["step"], found["world_size"]
        if not (isinstance(folder, str) and isinstance(step, int) and isinstance(size, int)):
            raise TypeError
    except (ValueError, KeyError, TypeError):
        raise ValueError(
            f"the note of {len(text)} bytes at {store.path(_note(place))} is no decision of rank 0"
        ) from None
    return Checkpoint(store.path(folder), step, size)
