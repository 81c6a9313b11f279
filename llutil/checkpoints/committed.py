"""The checkpoints of a job that count, found from what lies in its store now.

One counts if its marker can be read, is of this job, and every file that it names is there with its
size. What does not count is ignored, and said once in the log. What the store refuses to show may
count: nobody may go back behind it, or remove it, so that is an error. This module may import only
the standard library and its own room.
"""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass, field

from llutil.checkpoints.marker import MARKER, Checkpoint, Marker, decode
from llutil.checkpoints.store import PROBE, Store

__all__ = ["ATTEMPTS", "CHAOS_NOTES", "Found", "folder_name", "look", "newest", "success_name"]

ATTEMPTS = ".attempts"
"""The folder of the notes by which ranks commit; see ``llutil.checkpoints.attempt``."""
CHAOS_NOTES = ".chaos"
"""The folder of notes about faults that have struck the job on purpose; see ``llutil.chaos``."""
_SUCCEEDED = re.compile(r"\.succeeded-([0-9]{1,18})")
_FOLDER = re.compile(r"step-(\d+)-[0-9a-f]{12}")

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class Found:
    """What lies in a store: by folder, the ``markers`` of the checkpoints that count, the newest
    first; ``parts``, the folders that no marker was written into; and why others are ``ignored``.

    ``succeeded`` is the number of the newest checkpoint when the job last succeeded, in an earlier
    life than this one; 0: never.
    """

    markers: dict[str, Marker] = field(default_factory=dict)
    parts: list[str] = field(default_factory=list)
    ignored: dict[str, str] = field(default_factory=dict)
    succeeded: int = 0


def folder_name(step: int, attempt: str) -> str:
    """The name of a checkpoint's folder. ``attempt`` makes it unique: 12 hexadecimal digits."""
    return f"step-{step}-{attempt}"


def success_name(number: int) -> str:
    """The name of the note that the job has succeeded after its checkpoint ``number``."""
    return f".succeeded-{number}"


def look(store: Store, job: str, life: str = "") -> Found:
    """What lies in the store of ``job``. A success with the name ``life`` is of this life of it; an
    empty name says that each launch is a life of its own.

    :raises OSError: the store refuses to show the folders, or one that is named as ours.
    """
    found = Found()
    markers = {}
    successes: list[int] = []
    for name in sorted(store.names("")):
        if name in {ATTEMPTS, CHAOS_NOTES} or name.startswith((".removed-", PROBE)):
            continue
        if success := _SUCCEEDED.fullmatch(name):
            successes.append(int(success[1]))
            continue
        try:
            marker = decode(store.get(f"{name}/{MARKER}"))
            problem = _problem(store, name, marker, job)
        except (FileNotFoundError, NotADirectoryError):
            if _FOLDER.fullmatch(name):
                found.parts.append(name)
            else:
                found.ignored[name] = "it is no checkpoint of llutil"
        except ValueError as error:
            found.ignored[name] = str(error)
        except OSError as error:
            if _FOLDER.fullmatch(name):
                raise
            found.ignored[name] = str(error)  # somebody else's, who lets nobody in
        else:
            if problem:
                found.ignored[name] = problem
            else:
                markers[name] = marker
    # A job that runs every day has many; the newest of another life is enough.
    for number in sorted(successes, reverse=True):
        if not life or store.get(success_name(number)) != life.encode():
            found.succeeded = number
            break
    newest_first = sorted(markers, key=lambda name: _age(markers[name]), reverse=True)
    found.markers = {name: markers[name] for name in newest_first}
    return found


def newest(store: Store, job: str, *, succeeded: bool = False, life: str = "") -> Checkpoint | None:
    """The newest checkpoint of ``job`` that counts. What does not count is named in the log.

    One from before the job's last success is left out, unless ``succeeded``, or that was in this
    ``life``: see ``look``, also for what it raises.
    """
    found = look(store, job, life)
    for name, why in found.ignored.items():
        _log.warning("%s is ignored among the checkpoints of job %r: %s", name, job, why)
    for name in found.parts:
        _log.info("%s does not count: it was never committed", store.path(name))
    for name, marker in found.markers.items():
        if marker.number <= found.succeeded and not succeeded:
            _log.info(
                "%s is not resumed from: job %r has succeeded since, and begins afresh",
                store.path(name),
                job,
            )
            return None
        return Checkpoint(store.path(name), marker.step, marker.world_size)
    return None


def _age(marker: Marker) -> tuple[int, int]:
    return marker.number, marker.step


def _problem(store: Store, name: str, marker: Marker, job: str) -> str:
    """Why this checkpoint does not count for ``job``; "" if it does."""
    if marker.job != job:
        return f"it is a checkpoint of job {marker.job!r}"
    there = store.files(name)
    if MARKER not in there:
        # Whoever removes it goes on with that. A list that comes late must not make it a part.
        return "its marker was removed just now"
    lost = [file for file, size in marker.files.items() if there.get(file) != size]
    if lost:
        return f"{len(lost)} of its {len(marker.files)} files are gone or changed, as {lost[0]!r}"
    return ""
