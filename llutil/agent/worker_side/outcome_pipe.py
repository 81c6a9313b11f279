"""How a rank tells its agent what it returned or why it failed: one frame on a pipe.

A frame is one kind byte, eight bytes of length (big endian) and the content: ``R`` a pickled value,
``J`` a value as JSON, ``E`` an error as JSON. The agent reads bytes as they come, so a rank can
hand in a value of any size. If a rank is killed while it writes, its frame is known to be
incomplete. This module may import nothing but the standard library; it never unpickles a value.
"""

from __future__ import annotations

import json
import os
import struct
from contextlib import suppress
from dataclasses import asdict, dataclass

__all__ = ["RANK_DID_NOT_END", "ErrorNote", "OutcomeReader", "Returned", "frame", "write_frame"]

RANK_DID_NOT_END = "RankDidNotEndError"
"""The ``kind`` for a rank that returned and whose process then had to be killed."""

_HEAD = struct.Struct(">cQ")


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorNote:
    """Why a rank failed, as it reported it.

    ``kind`` is the exception's class name, ``text`` its message, ``trace`` the formatted traceback
    (may be empty). ``fatal`` says that a restart cannot help: the function could not be loaded or
    called, or its value cannot be handed on. ``bad_configuration`` says that the user's code never
    began. ``at`` is when it failed, on ``time.monotonic()``, which is one clock for all processes
    of a host.
    """

    kind: str
    text: str
    trace: str = ""
    fatal: bool = False
    bad_configuration: bool = False
    at: float = 0.0


@dataclass(frozen=True, slots=True)
class Returned:
    """A rank's value, still encoded: pickled if ``pickled``, else JSON text."""

    content: bytes
    pickled: bool


def frame(note: Returned | ErrorNote) -> tuple[bytes, bytes]:
    """Head and content of the frame for ``note``. They are two pieces, so that a big content is not
    copied.
    """
    match note:
        case Returned(content=content, pickled=pickled):
            kind = b"R" if pickled else b"J"
        case ErrorNote():
            kind, content = b"E", json.dumps(asdict(note)).encode()
    return _HEAD.pack(kind, len(content)), content


def write_frame(fd: int, note: Returned | ErrorNote) -> None:
    """Write ``note`` to the pipe ``fd``, however long that takes.

    :raises BrokenPipeError: the agent is gone.
    """
    for piece in frame(note):
        view = memoryview(piece)
        while view:
            view = view[os.write(fd, view) :]


class OutcomeReader:
    """Puts a frame together from the bytes of the pipe."""

    def __init__(self) -> None:
        self._data = bytearray()

    def feed(self, data: bytes) -> None:
        """Take what was read."""
        self._data += data

    @property
    def begun(self) -> bool:
        """Whether anything came at all."""
        return bool(self._data)

    def note(self) -> Returned | ErrorNote | None:
        """What the rank reported; None if the frame is not complete, or is not a valid one.

        It is not valid if a program closed all its descriptors and got the pipe's number for a file
        of its own.
        """
        if len(self._data) < _HEAD.size:
            return None
        kind, length = _HEAD.unpack_from(self._data)
        if len(self._data) < _HEAD.size + length:
            return None
        content = bytes(memoryview(self._data)[_HEAD.size : _HEAD.size + length])
        match kind:
            case b"R" | b"J":
                return Returned(content, pickled=kind == b"R")
            case b"E":
                with suppress(ValueError, TypeError, RecursionError):
                    return ErrorNote(**json.loads(content))
            case _:
                pass
        return None
