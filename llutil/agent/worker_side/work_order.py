"""The order: what a worker is told before it runs. It is the same for every rank of a round.

Ranks and sizes are in the environment, as torch has them. The order says what to run and in which
form to answer. It travels in a memory file whose descriptor the worker inherits: without a size
limit, a path or a file on disk. This module may import nothing but the standard library, msgspec
and ``llutil.entrypoint``: it is read before a worker's ``sys.path`` is complete.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import msgspec

from llutil.entrypoint import Entrypoint, FunctionName, PickledCall

__all__ = ["WorkOrder", "read_order", "write_order"]


class WorkOrder(msgspec.Struct, frozen=True, kw_only=True):
    """What to run (``entrypoint``), where modules are (``sys_path``; empty for a script or a module
    means its interpreter's own), the command line that a function finds (``argv``), and the form of
    the answer.

    ``result_limit`` None means that results are pickled, for a caller in this interpreter. A number
    means that they are plain JSON of at most so many bytes, for XCom. With ``arrays``, a result
    that holds arrays is an archive instead. 0 means that nobody wants the results. A result that
    cannot be handed on is kept in ``kept_folder``. ``log_level`` is from which level on the log
    records of a function are shown, as a number of ``logging``; 0 leaves that to Python.
    ``stop_signals`` are the signals that the agent handles, by number; a rank has their default
    handlers at first.
    """

    entrypoint: Entrypoint
    sys_path: tuple[str, ...]
    argv: tuple[str, ...] = ("",)
    result_limit: int | None
    arrays: bool = False
    kept_folder: str = ""
    log_level: int = 0
    stop_signals: tuple[int, ...] = ()

    @property
    def has_values(self) -> bool:
        """Whether ranks return something, and somebody wants it."""
        is_function = isinstance(self.entrypoint, PickledCall | FunctionName)
        return is_function and self.result_limit != 0


def write_order(order: WorkOrder) -> int:
    """A descriptor of a memory file that holds ``order``; the caller closes it."""
    match order.entrypoint:
        case PickledCall() | FunctionName():
            payload = order.entrypoint.payload
            bare: Entrypoint = msgspec.structs.replace(order.entrypoint, payload=b"")
        case _:
            payload, bare = b"", order.entrypoint
    header = msgspec.to_builtins(msgspec.structs.replace(order, entrypoint=bare))
    fd = os.memfd_create("llutil-order", os.MFD_CLOEXEC)
    with os.fdopen(fd, "wb", closefd=False) as file:
        file.write(json.dumps(header).encode() + b"\n")
        file.write(payload)
    return fd


def read_order(file: int | str) -> WorkOrder:
    """The order in a memory file, by its descriptor here or its path. It is opened again, because
    other processes read the same file and share the position of the descriptor.
    """
    with Path(f"/proc/self/fd/{file}" if isinstance(file, int) else file).open("rb") as opened:
        header = json.loads(opened.readline())
        payload = opened.read()
    order = msgspec.convert(header, type=WorkOrder)
    if isinstance(order.entrypoint, PickledCall | FunctionName):
        entrypoint = msgspec.structs.replace(order.entrypoint, payload=payload)
        return msgspec.structs.replace(order, entrypoint=entrypoint)
    return order
