"""Where the sockets of this user's agents lie on this host: names, permissions, stale ones.

The folder is this user's alone (mode 0700), and each socket in it too (mode 0600). A socket's name
tells the agent's pid and its run id, so that an agent that does not answer is listed too. This
module may import only the standard library: the guardian imports it.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
import stat
import struct
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

__all__ = [
    "SocketName",
    "bound_socket",
    "connected",
    "make_private",
    "peer_of",
    "remove_stale",
    "removed",
    "socket_names",
]

# The kernel's limit of a socket's path is 107 bytes (unix(7)); the rest of the name needs 59.
_RUN_ID_SHOWN = 48
_PRIVATE = 0o700
_TRIES = 3
# struct ucred: pid, uid, gid.
_CREDENTIALS = struct.Struct("3i")


class SocketName(NamedTuple):
    """A socket by its name. ``run_id`` is cut after 48 characters."""

    path: str
    pid: int
    run_id: str

    def may_be_of(self, run_id: str) -> bool:
        """Whether it may be the socket of that run."""
        return self.run_id == run_id[:_RUN_ID_SHOWN]


def bound_socket(run_id: str, folder: Path | None = None) -> tuple[socket.socket, str]:
    """A listening socket of this process for people who ask for ``run_id``, and its path. Here and
    below, ``folder`` is the folder of sockets if it is not the usual one.

    :raises OSError: no folder could be made, or one is there that is not this user's alone.
    """
    problems = []
    for candidate in _folders(folder):
        for _ in range(_TRIES):
            try:
                return _bound_in(candidate, run_id)
            except FileNotFoundError:  # another agent has just removed the empty folder
                continue
            except OSError as error:
                problems.append(error.strerror or str(error))
                break
    raise OSError("; ".join(problems) or "the folder vanished again and again")


def socket_names(folder: Path | None = None) -> list[SocketName]:
    """The sockets of this user's agents here, in order of their names."""
    found = []
    for candidate in _folders(folder):
        with contextlib.suppress(OSError):
            _check(candidate)
            for entry in sorted(candidate.iterdir()):
                pid, _, rest = entry.name.partition(".")
                _, _, run_id = rest.partition(".")
                if pid.isdecimal() and run_id:
                    found.append(SocketName(str(entry), int(pid), run_id))
    return found


def connected(path: str) -> socket.socket | None:
    """A connection to the agent at ``path``, not blocking. None if no agent is behind it: then the
    socket is removed.

    :raises BlockingIOError: too many others wait for the agent.
    :raises OSError: it cannot be connected to, for another reason.
    """
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        sock.connect(path)
        pid, _ = peer_of(sock)
        # A fork of the agent's program may hold the socket open. Pid 0 is in another namespace.
        if not pid or Path(f"/proc/{pid}").exists():
            return sock
    except (ConnectionRefusedError, FileNotFoundError):
        pass
    except BaseException:
        sock.close()
        raise
    sock.close()
    removed(path)
    return None


def peer_of(sock: socket.socket) -> tuple[int, int]:
    """The pid and the user id of the process at the other end (SO_PEERCRED, socket(7)). The pid is
    0 for a process in another pid namespace.
    """
    data = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    pid, uid, _ = _CREDENTIALS.unpack(data)
    return pid, uid


def remove_stale(folder: Path | None = None) -> None:
    """Remove the sockets of agents that have ended without removing them."""
    for name in socket_names(folder):
        with contextlib.suppress(OSError):
            sock = connected(name.path)
            if sock is not None:
                sock.close()


def removed(path: str) -> None:
    """Remove the socket ``path``, and its folder if nothing else is in it."""
    with contextlib.suppress(OSError):
        Path(path).unlink(missing_ok=True)
        Path(path).parent.rmdir()


def _folders(folder: Path | None) -> Iterator[Path]:
    """The folders that sockets may lie in, the best first: in memory, then on disk."""
    if folder is not None:
        yield folder
        return
    name = f"llutil-{os.geteuid()}"
    memory = Path("/dev/shm")  # noqa: S108 - the folder in it is checked
    if memory.is_dir():
        yield memory / name
    yield Path(tempfile.gettempdir(), name)


def make_private(folder: Path) -> None:
    """Make ``folder`` for this user alone, unless it is there.

    :raises OSError: it cannot be made, or one is there that is not this user's alone.
    """
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=_PRIVATE)
    _check(folder)


def _bound_in(folder: Path, run_id: str) -> tuple[socket.socket, str]:
    make_private(folder)
    name = f"{os.getpid()}.{secrets.token_hex(3)}"
    hidden, path = folder / f".{name}", folder / f"{name}.{run_id[:_RUN_ID_SHOWN]}"
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        sock.bind(str(hidden))
        hidden.chmod(0o600)
        sock.listen()
        # Only now: a socket that is bound and does not listen yet looks like a stale one.
        hidden.rename(path)
    except BaseException:
        sock.close()
        hidden.unlink(missing_ok=True)
        raise
    return sock, str(path)


def _check(folder: Path) -> None:
    """Check that ``folder`` is a folder of this user alone.

    :raises OSError: it is not, or there is none.
    """
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode):
        raise OSError(f"{folder} is no folder; remove it")
    if found.st_uid != os.geteuid():
        raise OSError(f"{folder} belongs to user {found.st_uid}, not to {os.geteuid()}")
    if found.st_mode & 0o077:
        raise OSError(f"others may use {folder}; remove it, or 'chmod 700' it")
