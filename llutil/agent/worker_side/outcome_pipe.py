"""How a rank tells its agent what it returned or why it failed: one frame on a pipe.

A frame is one kind byte, eight bytes of length (big endian) and the content: ``R`` a pickled value,
``J`` a value as JSON, ``K`` the text on a value that cannot be handed on, ``E`` an error as JSON.
The agent reads bytes as they come, so a rank can hand in a value of any size. If a rank is killed
while it writes, its frame is known to be incomplete. This module may import nothing but the
standard library; it never unpickles a value.
"""

from __future__ import annotations

import json
import os
import struct
from contextlib import suppress
from dataclasses import asdict, dataclass

__all__ = [
    "RANK_DID_NOT_END",
    "RANK_HANGS",
    "RANK_WAITS",
    "STUCK_KINDS",
    "ErrorNote",
    "Note",
    "OutcomeReader",
    "Refused",
    "Returned",
    "frame",
    "write_frame",
]

RANK_DID_NOT_END = "RankDidNotEndError"
"""The ``kind`` for a rank that returned and whose process then had to be killed."""
RANK_HANGS = "RankHangsError"
"""The ``kind`` for a rank that was found hanging and had to be ended."""
RANK_WAITS = "RankWaitsError"
"""The same where every rank of the node waited for another node's."""
STUCK_KINDS = frozenset({RANK_DID_NOT_END, RANK_HANGS, RANK_WAITS})
"""The kinds of notes that the agent makes of a rank that would not end by itself."""

_HEAD = struct.Struct(">cQ")


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorNote:
    """Why a rank failed, as it reported it.

    ``kind`` is the exception's class name, ``text`` its message, ``trace`` the formatted traceback
    (may be empty). ``fatal`` says that a restart cannot help: the function could not be loaded or
    called, or its value cannot be handed on. ``bad_configuration`` says that the user's code never
    began. ``at`` is when it failed, on ``time.monotonic()``, which is one clock for all processes
    of a host. ``exit_code`` is what it ends with by its own wish: the function called ``sys.exit``.
    ``final_exception`` is ``Failure``'s.
    """

    kind: str
    text: str
    trace: str = ""
    fatal: bool = False
    bad_configuration: bool = False
    at: float = 0.0
    exit_code: int | None = None
    final_exception: str = ""


@dataclass(frozen=True, slots=True)
class Returned:
    """A rank's value, still encoded: pickled if ``pickled``, else JSON text."""

    content: bytes | bytearray
    pickled: bool


@dataclass(frozen=True, slots=True)
class Refused:
    """The rank has returned a value that cannot be handed on: why, and where it is kept."""

    text: str


Note = Returned | Refused | ErrorNote
"""What a rank reports at its end."""


def frame(note: Note) -> tuple[bytes | bytearray, bytes | bytearray]:
    """Head and content of the frame for ``note``. They are two pieces, so that a big content is not
    copied.
    """
    match note:
        case Returned(content=content, pickled=pickled):
            kind = b"R" if pickled else b"J"
        case ErrorNote():
            kind, content = b"E", json.dumps(asdict(note)).encode()
        case Refused(text=text):
            kind, content = b"K", text.encode(errors="backslashreplace")
    return _HEAD.pack(kind, len(content)), content


def write_frame(fd: int, note: Note) -> None:
    """Write ``note`` to the pipe ``fd``, however long that takes.

    :raises BrokenPipeError: the agent is gone.
    """
    for piece in frame(note):
        view = memoryview(piece)
        while view:
            view = view[os.write(fd, view) :]


class OutcomeReader:
    """Puts a frame together from the bytes of the pipe. The content is in memory once."""

    def __init__(self) -> None:
        self._head = bytearray()
        self._content = bytearray()
        self._note: Note | None = None

    def feed(self, data: bytes) -> None:
        """Take what was read."""
        missing = _HEAD.size - len(self._head)
        self._head += data[:missing]
        self._content += data[missing:] if missing else data

    @property
    def begun(self) -> bool:
        """Whether anything came at all."""
        return bool(self._head)

    def note(self) -> Note | None:
        """What the rank reported; None if the frame is not complete, or is not a valid one.

        It is not valid if a program closed all its descriptors and got the pipe's number for a file
        of its own.
        """
        if self._note is None and len(self._head) == _HEAD.size:
            kind, length = _HEAD.unpack(self._head)
            if len(self._content) >= length:
                del self._content[length:]
                self._note = _note(kind, self._content)
        return self._note


def _note(kind: bytes, content: bytearray) -> Note | None:
    match kind:
        case b"R" | b"J":
            return Returned(content, pickled=kind == b"R")
        case b"K":
            return Refused(content.decode(errors="replace"))
        case b"E":
            with suppress(ValueError, TypeError, RecursionError):
                return ErrorNote(**json.loads(content))
        case _:
            pass
    return None
