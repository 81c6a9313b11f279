"""What a task asks of an agent server, as the message that it sends: an agent with this command
line, environment and these descriptors.

The message is a memory file with JSON, and descriptors. This module may import only the standard
library.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

__all__ = ["Order", "receive_order", "send_order"]

_VERSION = 1
# SCM_MAX_FD of unix(7) is 253.
_MOST_DESCRIPTORS = 250


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """An agent that is asked for.

    ``arguments`` are those of ``python -m llutil``, and ``env`` is its whole environment.
    ``sys_path`` are the folders that ``python -c`` with the agent's code has after its own.
    ``places`` are the numbers that the descriptors have in the agent, which come in this order
    after the working directory's.
    """

    arguments: Sequence[str]
    env: Mapping[str, str]
    sys_path: Sequence[str]
    places: Sequence[int]


def send_order(sock: socket.socket, order: Order, cwd: int, fds: Sequence[int]) -> None:
    """Send ``order``, with a descriptor of the agent's working directory and of its ``places``.

    :raises OSError: it could not be sent.
    """
    body = os.memfd_create("llutil-order", os.MFD_CLOEXEC)
    try:
        fields = {
            "version": _VERSION,
            "arguments": list(order.arguments),
            "env": dict(order.env),
            "sys_path": list(order.sys_path),
            "places": list(order.places),
        }
        with open(body, "wb", closefd=False) as file:
            file.write(json.dumps(fields).encode())
        socket.send_fds(sock, [b"!"], [body, cwd, *fds])
    finally:
        os.close(body)


def receive_order(sock: socket.socket) -> tuple[Order, list[int]] | None:
    """The order, and its descriptors but the first; None if the other side has closed.

    :raises ValueError: it is no order of this version.
    :raises OSError: it could not be read.
    """
    data, fds, _, _ = socket.recv_fds(sock, 16, _MOST_DESCRIPTORS)
    try:
        if not data:
            return None
        if data != b"!" or not fds:
            raise ValueError("what came is no order")
        with open(fds[0], "rb", closefd=False) as file:
            file.seek(0)
            fields = json.load(file)
        if fields.pop("version", None) != _VERSION:
            raise ValueError("the order is of another version of llutil")
        order = Order(**fields)
        if len(order.places) != len(fds) - 2:
            raise ValueError(f"{len(fds)} descriptors came with {len(order.places)} places")
        kept, fds = fds[1:], fds[:1]
    except (TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"the order cannot be read: {error}") from error
    else:
        return order, kept
    finally:
        for fd in fds:
            os.close(fd)
