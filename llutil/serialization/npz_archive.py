"""Values with arrays as an ``.npz`` archive: the zip file of ``.npy`` files that numpy reads.

The archive holds no pickle. ``value.json`` in it is the value, where each array is replaced by
``{"__array__": n, "dtype": ..., "shape": ...}``, and ``<n>.npy`` is that array. A value without
arrays is plain JSON, which never begins like a zip file. This module may import only the standard
library, ``llutil.serialization.json_values`` and ``llutil.errors``, and numpy if there are arrays.
"""

from __future__ import annotations

import io
import json
import zipfile
from typing import Any

from llutil.serialization import json_values

__all__ = ["decode", "encode", "is_archive", "json_in_head"]

_VALUE = "value.json"
_MAGIC = b"PK\x03\x04"
# Where a zip file's header of a member has these lengths, and its own length; in bytes.
_SIZE_AT, _NAME_AT, _EXTRA_AT, _HEADER = 22, 26, 28, 30


def encode(value: object, *, rank: int, limit: int) -> bytes:
    """``value`` in at most about ``limit`` bytes: an archive if there are arrays in it, else JSON.

    :raises ResultError: as ``llutil.serialization.json_values.encode`` does.
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
    """Whether content that begins with ``head`` is an archive."""
    return head.startswith(_MAGIC)


def json_in_head(head: bytes) -> bytes:
    """The value's JSON in ``head``, the first bytes of an archive; cut where ``head`` ends."""
    size, name, extra = (
        int.from_bytes(head[at : at + width], "little")
        for at, width in ((_SIZE_AT, 4), (_NAME_AT, 2), (_EXTRA_AT, 2))
    )
    begin = _HEADER + name + extra
    return head[begin : begin + size]


def decode(content: bytes) -> Any:
    """The value in the archive ``content``, with numpy arrays in it.

    :raises ValueError: ``content`` is not such an archive.
    :raises ModuleNotFoundError: numpy is not installed.
    """
    from numpy.lib import format as npy

    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:

            def with_arrays(part: Any) -> Any:
                match part:
                    case {json_values.ARRAY: int(number)}:
                        with archive.open(f"{number}.npy") as member:
                            return npy.read_array(member, allow_pickle=False)
                    case dict():
                        return {key: with_arrays(item) for key, item in part.items()}
                    case list():
                        return [with_arrays(item) for item in part]
                    case _:
                        return part

            return with_arrays(json.loads(archive.read(_VALUE)))
    except (zipfile.BadZipFile, KeyError, EOFError) as error:
        raise ValueError(f"this is not an archive of a value: {error}") from error
