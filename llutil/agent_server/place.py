"""Where the socket and the lock of an agent server lie: one place for each user, interpreter and
temporary folder of a host, or of a container.

This module may import only the standard library and ``llutil.agent_socket.folder``.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import socket
import tempfile
from contextlib import suppress
from pathlib import Path

from llutil.agent_socket.folder import make_private, peer_of

__all__ = ["PlaceLock", "listener_at", "place_of", "servers", "take_problem", "write_problem"]

_SUFFIX = ".agents"
_LOCK = ".lock"
_PROBLEM = ".problem"
_BACKLOG = 64


def place_of(python: str, folder: Path | None = None) -> Path:
    """The path of the socket for agents of the interpreter ``python``, an absolute path. ``folder``
    is the folder if it is not the usual one.

    :raises OSError: the folder could not be made, or is not this user's alone.
    """
    folder = folder or _usual_folder()
    make_private(folder)
    # Containers may share the folder. A server cannot fork a process for another one.
    spaces = (str(entry.readlink()) for entry in sorted(Path("/proc/self/ns").iterdir()))
    kind = "\0".join((python, *spaces))
    return folder / f"{hashlib.sha256(os.fsencode(kind)).hexdigest()[:12]}{_SUFFIX}"


def servers(folder: Path | None = None) -> dict[Path, int]:
    """The agent servers of this user and temporary folder that serve: their sockets, and the
    numbers of their processes.
    """
    found = {}
    for path in sorted((folder or _usual_folder()).glob(f"*{_SUFFIX}")):
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK)
        with sock, suppress(OSError):
            sock.connect(str(path))
            pid, user = peer_of(sock)
            if user == os.geteuid():
                found[path] = pid
    return found


def _usual_folder() -> Path:
    # A process reads TMPDIR once. So an agent with another one could not be forked, and looks for
    # its server elsewhere.
    return Path(tempfile.gettempdir(), f"llutil-{os.geteuid()}")


def listener_at(place: Path) -> socket.socket:
    """A socket that listens at ``place``, instead of a dead one that may lie there. For the holder
    of its lock.

    :raises OSError: there can be none.
    """
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK)
    hidden = place.with_name(f".{place.name}")
    hidden.unlink(missing_ok=True)
    listener.bind(str(hidden))
    hidden.chmod(0o600)
    listener.listen(_BACKLOG)
    # Only now: one that does not listen yet looks like a dead one.
    hidden.rename(place)
    return listener


def write_problem(place: Path, text: str) -> None:
    """Leave, for the next task to log, why the server could not start.

    :raises OSError: there is no room for it. Then nothing is left.
    """
    path = place.with_suffix(_PROBLEM)
    try:
        path.write_text(text, encoding="utf-8")
    except OSError:
        with suppress(OSError):
            path.unlink(missing_ok=True)
        raise


def take_problem(place: Path) -> str:
    """Why the last server could not start, once; "" if nothing is known."""
    path = place.with_suffix(_PROBLEM)
    text = ""
    with suppress(OSError):
        text = path.read_text(encoding="utf-8", errors="replace")
        path.unlink()
    return text.strip()


class PlaceLock:
    """The lock of ``place``, held until this process ends or ``remove`` is called."""

    def __init__(self, place: Path, fd: int) -> None:
        self._place = place
        self._fd = fd

    @classmethod
    def take(cls, place: Path) -> PlaceLock | None:
        """Take it; None if another process has it.

        :raises OSError: there can be none.
        """
        path = place.with_suffix(_LOCK)
        while True:
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(fd)
                return None
            found = cls(place, fd)
            # Its last holder may have removed the file after it was opened here.
            if found._is_there():
                return found
            os.close(fd)

    def remove(self) -> None:
        """Remove the socket and the lock, and the folder if nothing else is in it. Once."""
        if self._fd < 0:
            return
        if self._is_there():
            self._place.unlink(missing_ok=True)
            self._place.with_suffix(_LOCK).unlink()
        os.close(self._fd)
        self._fd = -1
        with suppress(OSError):
            self._place.parent.rmdir()

    def _is_there(self) -> bool:
        try:
            found = self._place.with_suffix(_LOCK).lstat()
        except FileNotFoundError:
            return False
        return os.path.samestat(os.fstat(self._fd), found)
