"""Scalars and arrays of numpy and torch in Python's own terms, without importing either.

A value of theirs can only exist in a process that has imported them, so they are looked up among
the loaded modules. This module may import nothing but the standard library.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

__all__ = ["Array", "Unreadable", "recognise"]


class Unreadable(Exception):
    """An array that has no meaning in numbers and text; the text says why, and what to do."""


@dataclass(frozen=True, slots=True)
class Array:
    """An array of ``count`` items that have not been read out yet.

    ``read`` gives a list of lists, a single item if the array has no ``dimensions``. It can raise
    ``Unreadable``, and the items may be values of numpy's again. ``whole`` gives an array of
    numpy's that holds the same without objects of Python's, or None if there is none; it can raise
    ``Unreadable`` too.
    """

    what: str
    count: int
    read: Callable[[], Any]
    dimensions: int
    whole: Callable[[], Any]


def recognise(value: Any) -> Array | None:
    """``value`` as an array, or None if it is none of numpy's or torch's."""
    numpy, torch = sys.modules.get("numpy"), sys.modules.get("torch")
    if numpy is not None and isinstance(value, (numpy.ndarray, numpy.generic)):
        what = f"a {value.dtype} array of shape {value.shape}"
        return Array(
            what,
            value.size,
            lambda: _read_numpy(value),
            value.ndim,
            lambda: _whole_numpy(value, numpy),
        )
    if torch is not None and isinstance(value, torch.Tensor):
        what = f"a {value.dtype} tensor of shape {tuple(value.shape)}"
        return Array(
            what,
            value.numel(),
            lambda: _read_torch(value, torch),
            value.dim(),
            lambda: _whole_torch(value, torch),
        )
    return None


def _read_numpy(value: Any) -> Any:
    match value.dtype.kind:
        case "M":
            return value.astype(
                str
            ).tolist()  # ISO 8601; tolist alone makes integers of nanoseconds
        case "m" | "c":
            raise Unreadable(f"it holds {value.dtype}: return plain numbers instead")
        case "f" if not value.shape:
            return float(value)  # tolist would leave a long double as it is
        case _:
            return value.tolist()


def _whole_numpy(value: Any, numpy: Any) -> Any:
    # A plain array would tell what is masked.
    masked = isinstance(value, numpy.ma.MaskedArray)
    return None if masked or value.dtype.hasobject else numpy.asarray(value)


def _read_torch(value: Any, torch: Any) -> Any:
    try:
        return _dense(value, torch).tolist()
    except (RuntimeError, NotImplementedError, TypeError) as error:
        raise Unreadable(f"torch cannot read it out: {error}") from error


def _whole_torch(value: Any, torch: Any) -> Any:
    try:
        here = _dense(value, torch).resolve_conj().resolve_neg()
        try:
            return here.numpy()
        except (
            TypeError
        ):  # bfloat16 and the like, which numpy has not, and which a float32 holds exactly
            return here.to(torch.float32).numpy()
    except (RuntimeError, NotImplementedError, TypeError):  # without numpy, too
        return None


def _dense(value: Any, torch: Any) -> Any:
    if type(value).__name__ == "DTensor":
        raise Unreadable("it is spread over the ranks: return its full_tensor()")
    here = value.detach().cpu()
    return here if here.layout is torch.strided else here.to_dense()
