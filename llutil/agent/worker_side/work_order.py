"""What a worker is told before it runs: the order, the same for every rank of a round.

Rank facts are in the environment, as torch has them. The order says what to run and how to answer.
It travels in a memory file whose descriptor the worker inherits: no size limit, no path, nothing on
disk. This module may import nothing but the standard library and ``llutil.entrypoint``: it is read
before a worker's ``sys.path`` is complete.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, replace
from pathlib import Path

from llutil import entrypoint as _entrypoint
from llutil.entrypoint import Entrypoint, Reference, Shipped

__all__ = ["WorkOrder", "read_order", "write_order"]


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkOrder:
    """What to run (``entrypoint``), where modules are (``sys_path``), and the form of the answer.

    ``result_limit`` None means: results are pickled, for a caller in this interpreter. A number
    means: results are plain JSON of at most so many bytes, for XCom; with ``arrays``, arrays in
    them stay what they are.
    """

    entrypoint: Entrypoint
    sys_path: tuple[str, ...]
    result_limit: int | None
    arrays: bool = False


def write_order(order: WorkOrder) -> int:
    """A descriptor of a memory file that holds ``order``; the caller closes it."""
    match order.entrypoint:
        case Shipped() | Reference():
            payload = order.entrypoint.payload
            bare: Entrypoint = replace(order.entrypoint, payload=b"")
        case _:
            payload, bare = b"", order.entrypoint
    header = {
        "entrypoint": _entrypoint.to_json(bare),
        "sys_path": list(order.sys_path),
        "result_limit": order.result_limit,
        "arrays": order.arrays,
    }
    fd = os.memfd_create("llutil-order", os.MFD_CLOEXEC)
    with os.fdopen(fd, "wb", closefd=False) as file:
        file.write(json.dumps(header).encode() + b"\n")
        file.write(payload)
    return fd


def read_order(fd: int) -> WorkOrder:
    """The order in the memory file ``fd``; other ranks read the same file, so its position is not
    used.
    """
    with Path(f"/proc/self/fd/{fd}").open("rb") as file:
        header = json.loads(file.readline())
        payload = file.read()
    entrypoint = _entrypoint.from_json(header["entrypoint"])
    if isinstance(entrypoint, Shipped | Reference):
        entrypoint = replace(entrypoint, payload=payload)
    return WorkOrder(
        entrypoint=entrypoint,
        sys_path=tuple(header["sys_path"]),
        result_limit=header["result_limit"],
        arrays=header["arrays"],
    )
