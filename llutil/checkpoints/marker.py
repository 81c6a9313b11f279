"""The marker: the file ``COMMITTED`` of a checkpoint, written last, which makes it count.

It is JSON with a version, and says what the checkpoint is: its step, the world size and the job
that wrote it, and every file with its size. So a checkpoint that has lost files is found out. This
module may import only the standard library.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field

__all__ = ["MARKER", "Checkpoint", "Marker", "decode", "encode"]

MARKER = "COMMITTED"
"""The marker's name in the folder of its checkpoint."""
_VERSION = 1


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A committed checkpoint.

    ``path`` is its folder: a path, or the URI of a folder in a remote store. ``step`` is the number
    of steps that are done in it. ``world_size`` is how many ranks wrote it.
    """

    path: str
    step: int
    world_size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Marker:
    """What a marker says. Of two checkpoints of a job the newer is the one with the greater
    ``number``, whatever their steps and the clocks of their hosts are; ``files`` has the size of
    each file in bytes, by its path in the folder.
    """

    step: int
    world_size: int
    job: str
    number: int
    files: Mapping[str, int] = field(default_factory=dict)


def encode(marker: Marker) -> bytes:
    """The marker as it is written."""
    fields = {
        "version": _VERSION,
        "step": marker.step,
        "world_size": marker.world_size,
        "job": marker.job,
        "number": marker.number,
        "files": dict(marker.files),
    }
    return json.dumps(fields, indent=1).encode()


def decode(text: bytes) -> Marker:
    """What was written.

    :raises ValueError: it is not a whole marker of this version; the text says what it is.
    """
    try:
        fields = json.loads(text)
    except ValueError as error:
        raise ValueError(f"its marker of {len(text)} bytes is no JSON, or is cut short") from error
    if not isinstance(fields, dict) or fields.get("version") != _VERSION:
        version = fields.get("version") if isinstance(fields, dict) else None
        raise ValueError(f"its marker is of version {version!r}; wanted {_VERSION}")
    step, world_size, number = (fields.get(name) for name in ("step", "world_size", "number"))
    job, files = fields.get("job"), fields.get("files")
    if not (
        isinstance(step, int)
        and isinstance(world_size, int)
        and isinstance(number, int)
        and isinstance(job, str)
        and isinstance(files, dict)
        and all(isinstance(size, int) for size in files.values())
    ):
        raise ValueError("its marker lacks a field, or has one of a wrong type")
    return Marker(step=step, world_size=world_size, job=job, number=number, files=files)
