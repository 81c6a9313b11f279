"""Asks agents of this user on this host, all at once and within a time.

This module may import the standard library and its own room.
"""

from __future__ import annotations

import os
import selectors
import socket
import time
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass

from llutil.agent_socket.folder import SocketName, connected, peer_of
from llutil.agent_socket.messages import Answer, JobStatus, Request, decode_answer, encode

__all__ = ["Heard", "ask"]

_READ_SIZE = 1 << 16
_LONGEST_ANSWER = 1 << 22


@dataclass(frozen=True, slots=True)
class Heard:
    """What was heard of one agent: ``status``, or why nothing was (``problem``)."""

    name: SocketName
    status: JobStatus | None = None
    problem: str = ""


def ask(names: Iterable[SocketName], request: Request, seconds: float) -> list[Heard]:
    """Ask the agents at ``names``, for so many seconds together. Those that have ended are left
    out, and their sockets removed.
    """
    line = encode(request)
    found: dict[SocketName, Heard] = {}
    deadline = time.monotonic() + seconds
    with ExitStack() as stack:
        selector = stack.enter_context(selectors.DefaultSelector())
        received: dict[socket.socket, bytes] = {}
        for name in names:
            try:
                sock = connected(name.path)
                if sock is None:
                    continue
                stack.enter_context(sock)
                if peer_of(sock)[1] != os.geteuid():
                    continue
                sock.send(line)
            except BlockingIOError:
                found[name] = Heard(name, problem="it answers nobody: too many wait for it")
            except OSError as error:
                found[name] = Heard(name, problem=error.strerror or str(error))
            else:
                found[name] = Heard(name, problem=f"no answer within {seconds:g} s")
                received[sock] = b""
                selector.register(sock, selectors.EVENT_READ, name)
        while selector.get_map() and (left := deadline - time.monotonic()) > 0:
            for key, _ in selector.select(left):
                assert isinstance(key.fileobj, socket.socket)
                sock, name = key.fileobj, key.data
                data = _read(sock)
                received[sock] += data
                if not data or len(received[sock]) > _LONGEST_ANSWER:
                    found[name] = _heard(name, received[sock])
                    selector.unregister(sock)
    return [one for one in found.values() if one.status or one.problem]


def _read(sock: socket.socket) -> bytes:
    try:
        return sock.recv(_READ_SIZE)
    except OSError:
        return b""


def _heard(name: SocketName, data: bytes) -> Heard:
    if not data:
        return Heard(name)  # the agent has just ended
    try:
        answer: Answer = decode_answer(data)
    except ValueError as error:
        return Heard(name, problem=f"its answer is none of this version's: {error}")
    if answer.status is None:
        return Heard(name, problem=answer.error)
    return Heard(name, answer.status)
