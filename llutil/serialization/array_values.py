"""Scalars and arrays of numpy and torch as Python's own numbers and lists, importing neither.

Such a value exists only in a process that has imported numpy or torch, so they are looked up among
the loaded modules. This module may import only the standard library.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

__all__ = ["Array", "UnreadableArray", "as_array"]


class UnreadableArray(Exception):
    """An array that numbers and text cannot express; the text says why, and what to do."""


@dataclass(frozen=True, slots=True)
class Array:
    """An array of ``count`` items, whose contents have not been read yet.

    ``to_lists`` gives nested lists, or a single item if the array has no ``dimensions``. The items
    may still be values of numpy. ``to_numpy`` gives a numpy array with the same contents and
    without Python objects, or None if there is no such array. Both can raise ``UnreadableArray``.
    """

    description: str
    count: int
    to_lists: Callable[[], Any]
    dimensions: int
    to_numpy: Callable[[], Any]


def as_array(value: Any) -> Array | None:
    """``value`` as an array, or None if it is not one of numpy or torch."""
    numpy, torch = sys.modules.get("numpy"), sys.modules.get("torch")
    if numpy is not None and isinstance(value, (numpy.ndarray, numpy.generic)):
        return Array(
            f"a {value.dtype} array of shape {value.shape}",
            value.size,
            lambda: _numpy_to_lists(value),
            value.ndim,
            lambda: _numpy_without_objects(value, numpy),
        )
    if torch is not None and isinstance(value, torch.Tensor):
        return Array(
            f"a {value.dtype} tensor of shape {tuple(value.shape)}",
            value.numel(),
            lambda: _torch_to_lists(value, torch),
            value.dim(),
            lambda: _torch_to_numpy(value, torch),
        )
    return None


def _numpy_to_lists(value: Any) -> Any:
    match value.dtype.kind:
        case "M":
            # As ISO 8601 text: tolist alone would make integers of nanoseconds.
            return value.astype(str).tolist()
        case "m" | "c":
            raise UnreadableArray(f"it holds {value.dtype}: return plain numbers instead")
        case "f" if not value.shape:
            return float(value)  # tolist would leave a long double as it is
        case _:
            return value.tolist()


def _numpy_without_objects(value: Any, numpy: Any) -> Any:
    # A plain array would show the masked items.
    masked = isinstance(value, numpy.ma.MaskedArray)
    return None if masked or value.dtype.hasobject else numpy.asarray(value)


def _torch_to_lists(value: Any, torch: Any) -> Any:
    try:
        return _dense(value, torch).tolist()
    except (RuntimeError, NotImplementedError, TypeError) as error:
        raise UnreadableArray(f"torch cannot read it: {error}") from error


def _torch_to_numpy(value: Any, torch: Any) -> Any:
    try:
        dense = _dense(value, torch).resolve_conj().resolve_neg()
        try:
            return dense.numpy()
        except TypeError:
            # A type that numpy lacks, as bfloat16. A float32 holds its values exactly.
            return dense.to(torch.float32).numpy()
    except (RuntimeError, NotImplementedError, TypeError):  # also if numpy is not installed
        return None


def _dense(value: Any, torch: Any) -> Any:
    if type(value).__name__ == "DTensor":
        raise UnreadableArray("it is spread over the ranks: return its full_tensor()")
    local = value.detach().cpu()
    return local if local.layout is torch.strided else local.to_dense()
