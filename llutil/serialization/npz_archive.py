"""A value with its arrays as they are: an ``.npz`` archive, the zip file of ``.npy`` files that
numpy reads, and no pickle.

``value.json`` is the value, with ``{"__array__": n, "dtype": ..., "shape": ...}`` in each array's
place, and ``<n>.npy`` the array. A value without arrays is plain JSON, which never begins as a zip
file does. This module may import nothing but the standard library,
``llutil.serialization.json_values`` and ``llutil.errors``, and numpy when there are arrays.
"""

from __future__ import annotations

import io
import json
import zipfile
from typing import Any

from llutil.serialization import json_values

__all__ = ["decode", "encode", "is_archive", "text_in"]

_VALUE = "value.json"
_MAGIC = b"PK\x03\x04"
_SIZE_AT, _NAME_AT, _EXTRA_AT, _HEADER = 22, 26, 28, 30  # in a zip file's header of a member


def encode(value: object, *, rank: int, limit: int) -> bytes:
    """``value`` in at most about ``limit`` bytes: an archive if there are arrays in it, else JSON.

    :raises ResultError: see ``llutil.serialization.json_values.encode``.
    """
    arrays: list[Any] = []
    text = json_values.encode(value, rank=rank, limit=limit, arrays=arrays)
    if not arrays:
        return text
    from numpy.lib import format as npy

    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr(_VALUE, text)
        for number, array in enumerate(arrays):
            with archive.open(f"{number}.npy", "w", force_zip64=True) as member:
                npy.write_array(member, array, allow_pickle=False)
    return out.getvalue()


def is_archive(head: bytes) -> bool:
    """Whether what begins with ``head`` is an archive."""
    return head.startswith(_MAGIC)


def text_in(head: bytes) -> bytes:
    """The value's JSON in the first bytes of an archive, as far as they hold it."""
    size, name, extra = (
        int.from_bytes(head[at : at + width], "little")
        for at, width in ((_SIZE_AT, 4), (_NAME_AT, 2), (_EXTRA_AT, 2))
    )
    begin = _HEADER + name + extra
    return head[begin : begin + size]


def decode(content: bytes) -> Any:
    """The value in the archive ``content``, with arrays of numpy in it.

    :raises ValueError: it is none of ours.
    :raises ModuleNotFoundError: numpy is not installed.
    """
    from numpy.lib import format as npy

    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:

            def filled(part: Any) -> Any:
                match part:
                    case {json_values.ARRAY: int(number)}:
                        with archive.open(f"{number}.npy") as member:
                            return npy.read_array(member, allow_pickle=False)
                    case dict():
                        return {key: filled(item) for key, item in part.items()}
                    case list():
                        return [filled(item) for item in part]
                    case _:
                        return part

            return filled(json.loads(archive.read(_VALUE)))
    except (zipfile.BadZipFile, KeyError, EOFError) as error:
        raise ValueError(f"no archive of a value: {error}") from error
