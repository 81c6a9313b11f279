"""What a rank returned, as plain JSON that goes to Airflow's XCom.

==============================================  ==================================================
returned                                        becomes
==============================================  ==================================================
None, bool, str, dict, list                     itself
int from -(2**63 - 1) to 2**63 - 1              itself; others are refused: XCom would round them
float                                           itself; ``"NaN"``, ``"Infinity"``, ``"-Infinity"``
                                                as text, since Airflow's API refuses the numbers;
                                                ``float()`` reads them back
dict keys: int, bool, None                      ``str(key)``; two keys that become equal are refused
tuple, set, frozenset                           itself; a named tuple becomes a tuple
what ``class_values`` knows: Decimal, UUID,     itself, kept by the name of its class; scalars of
date, datetime, timedelta, scalars of numpy,    numpy become numbers where the value takes more
DataFrame, objects of pydantic models,          bytes than its limit otherwise
dataclasses and attrs classes
dataclass or attrs object of a class that       dict of its fields
cannot be imported
numpy and torch arrays, other scalars of        number, or nested lists
theirs, any device
Enum member                                     its value
path                                            str
time, a moment with nanoseconds                 ISO 8601 text
pandas' NaT                                     None
==============================================  ==================================================

Anything else is refused; the error says where it is in the value. So is what a later step could not
handle: cyclic or very deep values, text that is not Unicode, keys that Airflow reserves, and more
bytes than the limit.

This runs in the worker. It may import only the standard library, ``llutil.errors`` and, of this
room, ``array_values``, ``class_values`` and ``place_in_value``; none imports numpy or torch.
"""

from __future__ import annotations

import datetime as dt
import json
import math
import operator
from collections.abc import Iterable, Mapping, Set
from enum import Enum
from pathlib import PurePath
from typing import Any

from llutil.serialization.array_values import UnreadableArray, as_array
from llutil.serialization.class_values import ClassValue, class_value, fields_of, node
from llutil.serialization.place_in_value import PlaceInValue, TooBigError, type_name

__all__ = ["ARRAY", "encode"]

ARRAY = "__array__"
"""The key of the dict that stands for an array which is kept beside the JSON."""

_GREATEST = 2**63 - 1
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


_PLAIN = (type(None), bool, int, float, str, list, dict)
_NODE = len(json.dumps(node("", 0, 0), separators=(",", ":"))) - 1
"""Bytes of JSON that a value kept by the name of its class takes, beside the name and its parts."""


def encode(value: object, *, rank: int, limit: int, arrays: list[Any] | None = None) -> bytes:
    """``value`` as JSON in ASCII, of ``limit`` bytes at most.

    With the list ``arrays``, arrays and tensors that have dimensions are appended to it as numpy
    arrays. In the JSON a dict takes their place, with ``ARRAY`` (their index in the list),
    ``dtype`` and ``shape``. Their bytes count towards the limit.

    :raises ResultError: JSON cannot express the value, or it takes more bytes. The text names the
        rank, the place in the value, and what to do.
    """
    conversion = _Conversion(f"rank {rank}: ", limit, arrays)
    try:
        return conversion.encode(value)
    except TooBigError:
        if not conversion.has_scalars:
            raise
    # A list of 20,000 numpy.float64 takes 1.4 MB by the name of their class, and 0.4 MB as numbers.
    if arrays is not None:
        arrays.clear()
    return _Conversion(f"rank {rank}: ", limit, arrays, plain_scalars=True).encode(value)


class _Conversion(PlaceInValue):
    """The conversion of one value."""

    def __init__(
        self, prefix: str, limit: int, arrays: list[Any] | None, *, plain_scalars: bool = False
    ) -> None:
        super().__init__(prefix, limit)
        self.has_scalars = False
        self._arrays = arrays
        self._plain_scalars = plain_scalars

    def encode(self, value: object) -> bytes:
        text = json.dumps(self.convert(value), separators=(",", ":"), allow_nan=False)
        if len(text) > self.limit:
            raise self.too_big(f"{len(text):,}")
        return text.encode("ascii")

    def convert(self, value: Any) -> Any:
        if type(value) not in _PLAIN and not isinstance(value, Enum):
            known = self._class_value(value)
            if known is not None:
                with self.inside(value, levels=2):
                    return self._by_class(known)
        match value:
            case Enum():
                return self.convert(value.value)
            case None | True | False:
                self.count(4)
                return value
            case int():
                return self._integer(value)
            case float():
                return self._float(value)
            case str():
                return self._text(value)
            case bytes() | bytearray() | memoryview():
                advice = "decode it to text, or write it to a file and return its path"
                raise self.refusal(value, advice)
            case complex():
                raise self.refusal(value, "return [z.real, z.imag]")
            case Mapping():
                with self.inside(value):
                    return self._dict((_key_label(key), key, value[key]) for key in value)
            case list():
                with self.inside(value):
                    return self._list(value)
            case tuple():
                with self.inside(value, levels=2):
                    return self._node("builtins.tuple", 1, self._list(value))
            case Set():
                with self.inside(value, levels=2):
                    items = self._list(_sorted(value))
                if not isinstance(value, set | frozenset):
                    return items
                kind = "frozenset" if isinstance(value, frozenset) else "set"
                return self._node(f"builtins.{kind}", 1, items)
            case PurePath():
                return self._text(str(value))
            case dt.time():
                return self._text(value.isoformat())
            case _ if not isinstance(value, type) and (fields := fields_of(value)) is not None:
                with self.inside(value):
                    return self._fields(fields)
            case _:
                with self.inside(value):
                    return self._array(value)

    def _class_value(self, value: Any) -> ClassValue | None:
        try:
            return class_value(value)
        except Exception as error:  # the value's own methods run, and those of its library
            raise self.refusal(value, f"{type(error).__name__}: {error}") from error

    def _by_class(self, known: ClassValue) -> Any:
        data = self._fields(known.data) if known.by_field else self.convert(known.data)
        if known.classname.startswith("numpy."):
            self.has_scalars = True
            if self._plain_scalars:
                return data
        return self._node(known.classname, known.version, data) if known.classname else data

    def _fields(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        return self._dict((f".{name}", name, item) for name, item in fields.items())

    def _node(self, classname: str, version: int, data: Any) -> dict[str, Any]:
        self.count(_NODE + len(classname))
        return node(classname, version, data)

    def _integer(self, value: int) -> int:
        if not -_GREATEST <= value <= _GREATEST:
            problem = "is an integer beyond ±(2**63 - 1), which XCom cannot keep: return it as text"
            raise self.error(problem)
        self.count(1)
        return int.__int__(value)  # makes a plain int of a subclass's value too

    def _float(self, value: float) -> float | str:
        self.count(3)
        if math.isfinite(value):
            return float.__float__(value)
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"

    def _text(self, value: str) -> str:
        self.count(len(value) + 2)
        if "\0" in value:
            raise self.error("holds a NUL character, which databases refuse in JSON: replace it")
        try:
            value.encode()
        except UnicodeEncodeError as error:
            problem = f"is text that is not Unicode ({error}): decode it with errors='replace'"
            raise self.error(problem) from error
        return str.__str__(value)

    def _list(self, items: Iterable[Any]) -> list[Any]:
        self.count(1)  # one bracket; the other is counted as the comma that the last item lacks
        names = getattr(items, "_fields", ())  # of a named tuple
        converted = []
        for index, item in enumerate(items):
            self.count(1)
            self.path.append(f".{names[index]}" if names else f"[{index}]")
            converted.append(self.convert(item))
            self.path.pop()
        return converted

    def _dict(self, items: Iterable[tuple[str, Any, Any]]) -> dict[str, Any]:
        """A dict of ``items``, which are ``(label in the path, key, value)``."""
        self.count(1)
        converted: dict[str, Any] = {}
        for label, key, item in items:
            self.count(2)
            self.path.append(label)
            name = self._key(key)
            if name in converted:
                problem = f"is under a key that becomes {name!r}, as another one does: rename it"
                raise self.error(problem)
            converted[name] = self.convert(item)
            self.path.pop()
        return converted

    def _key(self, key: Any) -> str:
        match key:
            case Enum():
                return self._key(key.value)
            case str() if key in _RESERVED:
                raise self.error("is under a key that Airflow keeps for itself: rename it")
            case str() if key == ARRAY and self._arrays is not None:
                raise self.error("is under the key that stands for arrays: rename it")
            case str():
                return self._text(key)
            case None | bool():
                return self._text(str(key))
            case _:
                try:
                    return self._text(str(operator.index(key)))
                # Not an integer, or one with thousands of digits.
                except (TypeError, ValueError) as error:
                    problem = f"is under a key of type {type_name(key)}: use a str"
                    raise self.error(problem) from error

    def _array(self, value: Any) -> Any:
        array = as_array(value)
        if array is None:
            raise self.refusal(value, _ADVICE)
        if self._arrays is not None and array.dimensions:
            try:
                content = array.to_numpy()
            except UnreadableArray as error:
                raise self.refusal(value, str(error)) from error
            if content is not None:
                self.count(content.nbytes)
                self._arrays.append(content)
                index = len(self._arrays) - 1
                return {ARRAY: index, "dtype": str(content.dtype), "shape": list(content.shape)}
        least = self.bytes + 2 * array.count - 1  # at least one digit an item, and commas
        if least > self.limit:
            part = f", of which {self.where()} is {array.description}"
            raise self.too_big(f"at least {least:,}", part)
        try:
            items = array.to_lists()
        except UnreadableArray as error:
            raise self.refusal(value, str(error)) from error
        return self.convert(items)


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
        return f"[{type_name(key)}]"
