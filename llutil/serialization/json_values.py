"""What a rank returned, as plain JSON that Airflow's XCom can hold.

================================================  ================================================
returned                                          becomes
================================================  ================================================
None, bool, str, dict, list                       itself
int from -(2**63 - 1) to 2**63 - 1                itself; beyond, it is refused: XCom would round it
float                                             itself; ``"NaN"``, ``"Infinity"``, ``"-Infinity"`` as
                                                  strings, since Airflow's API refuses those numbers;
                                                  ``float()`` reads them back
dict keys: int, bool, None                        ``str(key)``; two keys that become one are refused
tuple, named tuple                                list
set, frozenset                                    list, sorted if its items can be compared
numpy and torch scalars and arrays, any device    number, or list of lists
dataclass instance                                dict of its fields
Enum member                                       its value
path                                              str
date, time, datetime                              ISO 8601 text
================================================  ================================================

Anything else is refused with its place in the value, and so is what would break further on: cyclic
or very deep values, text that is no Unicode, keys that Airflow reserves, and more bytes than the
limit.

This runs in the worker. It may import nothing but the standard library, ``llutil.errors`` and
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
from llutil.serialization.array_values import Unreadable, recognise

__all__ = ["ARRAY", "encode"]

ARRAY = "__array__"
"""The key of what stands for an array that is kept beside the JSON."""

_GREATEST = 2**63 - 1
_DEEPEST = 100
"""Containers within containers; Airflow's API takes 200 in all (measured with Airflow 3.3.2)."""
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
"""Keys by which Airflow marks what it serialised itself; a dict with some of them cannot be read
back.
"""
_ADVICE = (
    "return numbers, text, lists and dicts of them, or write it to a file or object store and "
    "return its path"
)


def encode(value: object, *, rank: int, limit: int, arrays: list[Any] | None = None) -> bytes:
    """``value`` as JSON in ASCII, of ``limit`` bytes at most.

    With ``arrays``, arrays and tensors that have dimensions are appended to that, as numpy's; in
    their place is a dict of ``ARRAY``, their index in the list, ``dtype`` and ``shape``. Their
    bytes count.

    :raises ResultError: it cannot be told in JSON, or takes more bytes; the text names the rank,
        the place in the value, and what to do.
    """
    plain = _Conversion(f"rank {rank}: ", limit, arrays)
    text = json.dumps(plain.convert(value), separators=(",", ":"), allow_nan=False)
    if len(text) > limit:
        raise plain.too_big(f"{len(text):,}")
    return text.encode("ascii")


class _Conversion:
    """One value's way to JSON: where in it we are, what is around us, how many bytes it takes at
    least.
    """

    def __init__(self, whose: str, limit: int, arrays: list[Any] | None = None) -> None:
        self._whose = whose
        self._arrays = arrays
        self._limit = limit
        self._bytes = 0
        self._path = ["value"]
        self._around: list[int] = []

    def convert(self, value: Any) -> Any:
        match value:
            case Enum():
                return self.convert(value.value)
            case None | True | False:
                self._take(4)
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
                    return self._dict((_place(key), key, value[key]) for key in value)
            case list() | tuple():
                with self._inside(value):
                    return self._list(value)
            case Set():
                with self._inside(value):
                    return self._list(_ordered(value))
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
            what = "is an integer beyond ±(2**63 - 1), which XCom cannot keep: return it as text"
            raise self._problem(what)
        self._take(1)
        return int.__int__(value)  # of a subclass, too, a plain int

    def _float(self, value: float) -> float | str:
        self._take(3)
        if math.isfinite(value):
            return float.__float__(value)
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"

    def _text(self, value: str) -> str:
        self._take(len(value) + 2)
        if "\0" in value:
            raise self._problem("holds a NUL character, which databases refuse in JSON: replace it")
        try:
            value.encode()
        except UnicodeEncodeError as error:
            what = f"is text that is no Unicode ({error}): decode it with errors='replace'"
            raise self._problem(what) from error
        return str.__str__(value)

    def _list(self, items: Iterable[Any]) -> list[Any]:
        self._take(1)  # one bracket; the other stands for the comma that the last item lacks
        names = getattr(items, "_fields", ())  # of a named tuple
        plain = []
        for index, item in enumerate(items):
            self._take(1)
            self._path.append(f".{names[index]}" if names else f"[{index}]")
            plain.append(self.convert(item))
            self._path.pop()
        return plain

    def _dict(self, items: Iterable[tuple[str, Any, Any]]) -> dict[str, Any]:
        """A dict of ``(place, key, value)``."""
        self._take(1)
        plain: dict[str, Any] = {}
        for place, key, item in items:
            self._take(2)
            self._path.append(place)
            name = self._key(key)
            if name in plain:
                what = f"is under a key that becomes {name!r}, as another one does: rename it"
                raise self._problem(what)
            plain[name] = self.convert(item)
            self._path.pop()
        return plain

    def _key(self, key: Any) -> str:
        match key:
            case Enum():
                return self._key(key.value)
            case str() if key in _RESERVED:
                raise self._problem("is under a key that Airflow keeps for itself: rename it")
            case str() if key == ARRAY and self._arrays is not None:
                raise self._problem("is under the key that stands for arrays: rename it")
            case str():
                return self._text(key)
            case None | bool():
                return self._text(str(key))
            case _:
                try:
                    return self._text(str(operator.index(key)))
                except (
                    TypeError,
                    ValueError,
                ) as error:  # no integer, or one of thousands of digits
                    what = f"is under a key of type {_kind(key)}: use a str"
                    raise self._problem(what) from error

    def _array(self, value: Any) -> Any:
        array = recognise(value)
        if array is None:
            raise self._refusal(value, _ADVICE)
        if self._arrays is not None and array.dimensions:
            try:
                whole = array.whole()
            except Unreadable as error:
                raise self._refusal(value, str(error)) from error
            if whole is not None:
                self._take(whole.nbytes)
                self._arrays.append(whole)
                place = {ARRAY: len(self._arrays) - 1, "dtype": str(whole.dtype)}
                return place | {"shape": list(whole.shape)}
        least = self._bytes + 2 * array.count - 1  # of each item a digit, and commas
        if least > self._limit:
            what = f", of which {self._where()} is {array.what}"
            raise self.too_big(f"at least {least:,}", what)
        try:
            items = array.read()
        except Unreadable as error:
            raise self._refusal(value, str(error)) from error
        return self.convert(items)

    @contextmanager
    def _inside(self, value: object) -> Iterator[None]:
        if id(value) in self._around:
            raise self._problem("is inside itself, and JSON cannot say so: return its parts")
        if len(self._around) == _DEEPEST:
            raise self._problem(f"is nested more than {_DEEPEST} deep: return it flatter")
        self._around.append(id(value))
        yield
        self._around.pop()

    def _take(self, size: int) -> None:
        """Count bytes that the JSON will have at least, to stop before memory is filled with
        lists.
        """
        self._bytes += size
        if self._bytes > self._limit:
            raise self.too_big(f"at least {self._bytes:,}")

    def too_big(self, size: str, what: str = "") -> ResultError:
        return ResultError(
            f"{self._whose}the returned value takes {size} bytes as JSON{what}; the limit is "
            f"{self._limit:,}. Raise result_limit, give the task a results_path, or write it to a "
            "file or object store and return its path"
        )

    def _refusal(self, value: object, advice: str) -> ResultError:
        return self._problem(f"is {_kind(value)}, which XCom cannot hold: {advice}")

    def _problem(self, what: str) -> ResultError:
        return ResultError(f"{self._whose}{self._where()} {what}")

    def _where(self) -> str:
        path = self._path
        if len(path) > 20:
            path = [*path[:10], "...", *path[-5:]]
        return "".join(path)


def _ordered(items: Set[Any]) -> list[Any]:
    """A set in an order that does not change from run to run, as far as its items allow."""
    try:
        return sorted(items)
    except TypeError:
        return sorted(items, key=lambda item: (type(item).__qualname__, repr(item)))


def _place(key: object) -> str:
    try:
        return f"[{repr(key)[:80]}]"
    except ValueError:  # an integer of thousands of digits
        return f"[{_kind(key)}]"


def _kind(value: object) -> str:
    kind = type(value)
    name = kind.__qualname__
    return name if kind.__module__ in ("builtins", "__main__") else f"{kind.__module__}.{name}"
