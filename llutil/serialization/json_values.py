"""What a rank returned, as plain JSON that Airflow's XCom can hold.

==============================================  ==================================================
returned                                        becomes
==============================================  ==================================================
None, bool, str, dict, list                     itself
int from -(2**63 - 1) to 2**63 - 1              itself; others are refused: XCom would round them
float                                           itself; ``"NaN"``, ``"Infinity"``, ``"-Infinity"``
                                                as text, since Airflow's API refuses the numbers;
                                                ``float()`` reads them back
dict keys: int, bool, None                      ``str(key)``; two keys that become equal are refused
tuple, named tuple                              list
set, frozenset                                  list, sorted if its items can be compared
numpy and torch scalars and arrays, any device  number, or nested lists
dataclass instance                              dict of its fields
Enum member                                     its value
path                                            str
date, time, datetime                            ISO 8601 text
==============================================  ==================================================

Anything else is refused; the error says where it is in the value. So is what a later step could not
handle: cyclic or very deep values, text that is not Unicode, keys that Airflow reserves, and more
bytes than the limit.

This runs in the worker. It may import only the standard library, ``llutil.errors`` and
``llutil.serialization.array_values``, which import neither numpy nor torch.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import json
import math
import operator
from collections.abc import Iterable, Iterator, Mapping, Set
from contextlib import contextmanager
from enum import Enum
from pathlib import PurePath
from typing import Any

from llutil.errors import ResultError
from llutil.serialization.array_values import UnreadableArray, as_array

__all__ = ["ARRAY", "encode"]

ARRAY = "__array__"
"""The key of the dict that stands for an array which is kept beside the JSON."""

_GREATEST = 2**63 - 1
# Containers within containers. Airflow's API takes 200 in all (measured with Airflow 3.3.2).
_DEEPEST = 100
_RESERVED = frozenset(
    {
        "__cache__",
        "__classname__",
        "__data__",
        "__id__",
        "__source",
        "__type",
        "__var",
        "__version__",
    }
)
"""Keys by which Airflow marks what it serialised; it could not read our dict with one of them."""
_ADVICE = (
    "return numbers, text, lists and dicts of them, or write it to a file or object store and "
    "return its path"
)


def encode(value: object, *, rank: int, limit: int, arrays: list[Any] | None = None) -> bytes:
    """``value`` as JSON in ASCII, of ``limit`` bytes at most.

    With the list ``arrays``, arrays and tensors that have dimensions are appended to it as numpy
    arrays. In the JSON a dict takes their place, with ``ARRAY`` (their index in the list),
    ``dtype`` and ``shape``. Their bytes count towards the limit.

    :raises ResultError: JSON cannot express the value, or it takes more bytes. The text names the
        rank, the place in the value, and what to do.
    """
    conversion = _Conversion(f"rank {rank}: ", limit, arrays)
    text = json.dumps(conversion.convert(value), separators=(",", ":"), allow_nan=False)
    if len(text) > limit:
        raise conversion.too_big(f"{len(text):,}")
    return text.encode("ascii")


class _Conversion:
    """The conversion of one value. It knows the present place in the value, the containers around
    that place, and how many bytes the JSON takes at least.
    """

    def __init__(self, prefix: str, limit: int, arrays: list[Any] | None = None) -> None:
        self._prefix = prefix
        self._arrays = arrays
        self._limit = limit
        self._bytes = 0
        self._path = ["value"]
        self._containers: list[int] = []

    def convert(self, value: Any) -> Any:
        match value:
            case Enum():
                return self.convert(value.value)
            case None | True | False:
                self._count(4)
                return value
            case int():
                return self._integer(value)
            case float():
                return self._float(value)
            case str():
                return self._text(value)
            case bytes() | bytearray() | memoryview():
                advice = "decode it to text, or write it to a file and return its path"
                raise self._refusal(value, advice)
            case complex():
                raise self._refusal(value, "return [z.real, z.imag]")
            case Mapping():
                with self._inside(value):
                    return self._dict((_key_label(key), key, value[key]) for key in value)
            case list() | tuple():
                with self._inside(value):
                    return self._list(value)
            case Set():
                with self._inside(value):
                    return self._list(_sorted(value))
            case PurePath():
                return self._text(str(value))
            case dt.date() | dt.time():
                return self._text(value.isoformat())
            case dt.timedelta():
                raise self._refusal(value, "return its total_seconds()")
            case _ if dataclasses.is_dataclass(value) and not isinstance(value, type):
                names = [field.name for field in dataclasses.fields(value)]
                with self._inside(value):
                    return self._dict((f".{name}", name, getattr(value, name)) for name in names)
            case _:
                with self._inside(value):
                    return self._array(value)

    def _integer(self, value: int) -> int:
        if not -_GREATEST <= value <= _GREATEST:
            problem = "is an integer beyond ±(2**63 - 1), which XCom cannot keep: return it as text"
            raise self._error(problem)
        self._count(1)
        return int.__int__(value)  # makes a plain int of a subclass's value too

    def _float(self, value: float) -> float | str:
        self._count(3)
        if math.isfinite(value):
            return float.__float__(value)
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"

    def _text(self, value: str) -> str:
        self._count(len(value) + 2)
        if "\0" in value:
            raise self._error("holds a NUL character, which databases refuse in JSON: replace it")
        try:
            value.encode()
        except UnicodeEncodeError as error:
            problem = f"is text that is not Unicode ({error}): decode it with errors='replace'"
            raise self._error(problem) from error
        return str.__str__(value)

    def _list(self, items: Iterable[Any]) -> list[Any]:
        self._count(1)  # one bracket; the other is counted as the comma that the last item lacks
        names = getattr(items, "_fields", ())  # of a named tuple
        converted = []
        for index, item in enumerate(items):
            self._count(1)
            self._path.append(f".{names[index]}" if names else f"[{index}]")
            converted.append(self.convert(item))
            self._path.pop()
        return converted

    def _dict(self, items: Iterable[tuple[str, Any, Any]]) -> dict[str, Any]:
        """A dict of ``items``, which are ``(label in the path, key, value)``."""
        self._count(1)
        converted: dict[str, Any] = {}
        for label, key, item in items:
            self._count(2)
            self._path.append(label)
            name = self._key(key)
            if name in converted:
                problem = f"is under a key that becomes {name!r}, as another one does: rename it"
                raise self._error(problem)
            converted[name] = self.convert(item)
            self._path.pop()
        return converted

    def _key(self, key: Any) -> str:
        match key:
            case Enum():
                return self._key(key.value)
            case str() if key in _RESERVED:
                raise self._error("is under a key that Airflow keeps for itself: rename it")
            case str() if key == ARRAY and self._arrays is not None:
                raise self._error("is under the key that stands for arrays: rename it")
            case str():
                return self._text(key)
            case None | bool():
                return self._text(str(key))
            case _:
                try:
                    return self._text(str(operator.index(key)))
                # Not an integer, or one with thousands of digits.
                except (TypeError, ValueError) as error:
                    problem = f"is under a key of type {_type_name(key)}: use a str"
                    raise self._error(problem) from error

    def _array(self, value: Any) -> Any:
        array = as_array(value)
        if array is None:
            raise self._refusal(value, _ADVICE)
        if self._arrays is not None and array.dimensions:
            try:
                content = array.to_numpy()
            except UnreadableArray as error:
                raise self._refusal(value, str(error)) from error
            if content is not None:
                self._count(content.nbytes)
                self._arrays.append(content)
                index = len(self._arrays) - 1
                return {ARRAY: index, "dtype": str(content.dtype), "shape": list(content.shape)}
        least = self._bytes + 2 * array.count - 1  # at least one digit an item, and commas
        if least > self._limit:
            part = f", of which {self._where()} is {array.description}"
            raise self.too_big(f"at least {least:,}", part)
        try:
            items = array.to_lists()
        except UnreadableArray as error:
            raise self._refusal(value, str(error)) from error
        return self.convert(items)

    @contextmanager
    def _inside(self, value: object) -> Iterator[None]:
        if id(value) in self._containers:
            raise self._error("contains itself, which JSON cannot express: return its parts")
        if len(self._containers) == _DEEPEST:
            raise self._error(f"is nested more than {_DEEPEST} deep: return it flatter")
        self._containers.append(id(value))
        yield
        self._containers.pop()

    def _count(self, size: int) -> None:
        """Count bytes that the JSON will have at least, to stop before lists fill the memory."""
        self._bytes += size
        if self._bytes > self._limit:
            raise self.too_big(f"at least {self._bytes:,}")

    def too_big(self, size: str, part: str = "") -> ResultError:
        return ResultError(
            f"{self._prefix}the returned value takes {size} bytes as JSON{part}; the limit is "
            f"{self._limit:,}. Raise result_limit, give the task a results_path, or write it to a "
            "file or object store and return its path"
        )

    def _refusal(self, value: object, advice: str) -> ResultError:
        return self._error(f"is {_type_name(value)}, which XCom cannot hold: {advice}")

    def _error(self, problem: str) -> ResultError:
        return ResultError(f"{self._prefix}{self._where()} {problem}")

    def _where(self) -> str:
        path = self._path
        if len(path) > 20:
            path = [*path[:10], "...", *path[-5:]]
        return "".join(path)


def _sorted(items: Set[Any]) -> list[Any]:
    """The items of a set, in the same order in every run if they can be sorted."""
    try:
        return sorted(items)
    except TypeError:
        return sorted(items, key=lambda item: (type(item).__qualname__, repr(item)))


def _key_label(key: object) -> str:
    try:
        return f"[{repr(key)[:80]}]"
    except ValueError:  # an integer of thousands of digits
        return f"[{_type_name(key)}]"


def _type_name(value: object) -> str:
    kind = type(value)
    name = kind.__qualname__
    return name if kind.__module__ in ("builtins", "__main__") else f"{kind.__module__}.{name}"
