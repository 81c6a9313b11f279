"""Hands what a rank's function returned to its agent, or keeps it on disk if that cannot be done.

It runs in the worker, around ``llutil.serialization``, of which it imports what it needs when there
is a value. Of the agent it may import nothing but this folder.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import sys
from pathlib import Path
from typing import Any

from llutil.agent.worker_side.error_report import flush_streams, report_error
from llutil.agent.worker_side.outcome_pipe import Refused, Returned, write_frame
from llutil.agent.worker_side.work_order import WorkOrder
from llutil.errors import ResultError

__all__ = ["hand_in"]


def hand_in(value: Any, order: WorkOrder, outcome_fd: int) -> int:
    """Write ``value``, or where it is kept, to the agent. Returns the rank's exit status."""
    try:
        note = _encoded_or_kept(value, order)
    except BaseException as error:  # noqa: BLE001 - the edge of the process: the value's code runs
        return report_error(error, outcome_fd, fatal=True)
    flush_streams()
    try:
        write_frame(outcome_fd, note)
    except OSError as error:
        why = (
            f"rank {os.environ['RANK']}: the agent does not get what it returned ({error}): "
            "descriptors that a function has not opened, it may not close"
        )
        _say(why if isinstance(note, Refused) else f"{why}; {_keep(value, order)}")
        return 1
    return 0


def _encoded_or_kept(value: Any, order: WorkOrder) -> Returned | Refused:
    """The value for the agent, or where it is kept if it cannot be handed on: the rank has done its
    work, and does not fail.
    """
    try:
        return _encode(value, order)
    except Exception as error:  # noqa: BLE001 - as above
        rank = os.environ["RANK"]
        why = str(error)
        if not isinstance(error, ResultError):
            kind = f"{type(error).__qualname__}: " if why else type(error).__qualname__
            why = f"rank {rank}: the returned value cannot be handed on: {kind}{why}"
        text = f"{why}; {_keep(value, order)}"
        _say(text)
        return Refused(text)


def _keep(value: Any, order: WorkOrder) -> str:
    from llutil.serialization.kept_value import keep_value

    return keep_value(value, Path(order.kept_folder), f"rank_{os.environ['RANK']}.pickle")


def _say(text: str) -> None:
    with contextlib.suppress(Exception):  # as in flush_streams
        sys.stderr.write(f"{text}\n")


def _encode(value: Any, order: WorkOrder) -> Returned:
    if order.result_limit == 0:
        return Returned(b"null", pickled=False)
    if order.result_limit is not None:
        from llutil.serialization import json_values, npz_archive

        encode = npz_archive.encode if order.arrays else json_values.encode
        rank = int(os.environ["RANK"])
        return Returned(encode(value, rank=rank, limit=order.result_limit), pickled=False)
    import cloudpickle

    try:
        try:
            # By name, so that the caller gets objects of its own classes.
            return Returned(pickle.dumps(value, 5), pickled=True)
        except Exception:  # noqa: BLE001 - a lambda, say, or an object of a local class
            return Returned(cloudpickle.dumps(value), pickled=True)
    except Exception as error:
        kind = f"{type(value).__module__}.{type(value).__qualname__}"
        raise ResultError(
            f"rank {os.environ['RANK']} returned a {kind} that cannot be pickled ({error}): "
            "return plain values, arrays or tensors"
        ) from error
