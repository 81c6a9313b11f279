"""The agent's end of its private socket, on the agent's event loop.

It never waits: it accepts, reads and writes what can be done at once. A connection is one request
and one answer. What is no request gets an error, who is another user gets nothing, and of too many
connections the oldest is dropped. So nothing that comes over the socket delays a job or ends it.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Protocol

from llutil.agent_socket.folder import bound_socket, peer_of, remove_stale, removed
from llutil.agent_socket.messages import LONGEST_REQUEST, Answer, Request, decode_request, encode

__all__ = ["AgentSocket", "Loop"]

_log = logging.getLogger(__name__)

_MOST_CONNECTIONS = 16


class Loop(Protocol):
    """What of an event loop is needed."""

    def watch(self, fd: int, callback: Callable[[], None]) -> None:
        """Call ``callback`` whenever ``fd`` can be read."""

    def unwatch(self, fd: int) -> None:
        """Stop that."""


class AgentSocket:
    """Answers people on this host who ask for ``run_id``. ``answer`` is called with each request
    and who asks, in words. ``folder`` is the folder of sockets if it is not the usual one.

    A job runs without it too: if there can be no socket, the log says why. All of its descriptors
    are watched by ``loop``, so that a forked worker closes them with those of the loop.
    """

    def __init__(
        self,
        run_id: str,
        loop: Loop,
        answer: Callable[[Request, str], Answer],
        folder: Path | None = None,
    ) -> None:
        self._loop, self._answer = loop, answer
        self._received: dict[socket.socket, bytes] = {}
        """What each connection has sent so far, the oldest first."""
        self._listener: socket.socket | None = None
        self._path = ""
        remove_stale(folder)
        try:
            self._listener, self._path = bound_socket(run_id, folder)
        except OSError as error:
            _log.warning("no socket for 'llutil ps' and the like: %s", error)
            return
        loop.watch(self._listener.fileno(), self._accept)

    def close(self) -> None:
        """Answer nobody any more, and remove the socket."""
        for sock in tuple(self._received):
            self._drop(sock)
        if self._listener is not None:
            self._loop.unwatch(self._listener.fileno())
            self._listener.close()
            self._listener = None
            removed(self._path)

    def _accept(self) -> None:
        assert self._listener is not None
        try:
            sock, _ = self._listener.accept()
        except (BlockingIOError, ConnectionError):
            return
        except OSError as error:  # no descriptor is left, and the listener would stay ready
            _log.warning("'llutil ps' and the like find this job no more: %s", error.strerror)
            self.close()
            return
        sock.setblocking(False)
        if peer_of(sock)[1] != os.geteuid():
            sock.close()
            return
        if len(self._received) == _MOST_CONNECTIONS:
            self._drop(next(iter(self._received)))
        self._received[sock] = b""
        self._loop.watch(sock.fileno(), partial(self._read, sock))

    def _read(self, sock: socket.socket) -> None:
        try:
            data = sock.recv(LONGEST_REQUEST)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        line, newline, _ = (self._received[sock] + data).partition(b"\n")
        if newline or len(line) >= LONGEST_REQUEST:
            answer = self._answer_to(line, sock)
            # The kernel's buffer has room for it: it is the first that is written here.
            with contextlib.suppress(OSError):
                sock.send(encode(answer), socket.MSG_NOSIGNAL)
            self._drop(sock)
        elif data:
            self._received[sock] = line
        else:
            self._drop(sock)

    def _answer_to(self, line: bytes, sock: socket.socket) -> Answer:
        if len(line) >= LONGEST_REQUEST:
            return Answer(error=f"a request has at most {LONGEST_REQUEST} bytes")
        try:
            return self._answer(decode_request(line), f"process {peer_of(sock)[0]}")
        except ValueError as error:
            return Answer(error=str(error))
        except Exception as error:  # noqa: BLE001 - whoever asks must not end the job
            _log.exception("a request to the agent's socket failed")
            return Answer(error=f"{type(error).__name__}: {error}")

    def _drop(self, sock: socket.socket) -> None:
        self._received.pop(sock, None)
        self._loop.unwatch(sock.fileno())
        sock.close()
