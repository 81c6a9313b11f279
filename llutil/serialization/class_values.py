"""Values of classes that Airflow's XCom gives back as what they were, as a name and plain parts.

A plain task may return a ``Decimal``, a UUID, a pydantic model: Airflow keeps the name of the class
and rebuilds the value in the task that reads it (3.3, ``airflow.sdk.serde``). ``class_value`` says
for such a value which name that is, and of what it is made. The name, its version and the parts
stand in our JSON in a dict of Airflow's own form. No returned dict can be taken for it, since its
keys are refused in one.

A dataclass or an attrs class may have fields that it does not take (``init=False``). They are among
the parts, too. ``NOT_TAKEN`` says which ones they are, and whether each has the default of the
class, so that the class alone makes it alike.

A class that nobody can import by that name has none here: one of ``__main__``, or one inside a
function or another class. This module may import only the standard library. Libraries are looked up
among the loaded modules: without them there is no value of theirs.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import decimal
import sys
import uuid
import zoneinfo
from typing import Any

__all__ = [
    "CLASS",
    "CLASS_DATA",
    "CLASS_VERSION",
    "NOT_TAKEN",
    "ClassValue",
    "class_value",
    "fields_of",
    "node",
]

CLASS, CLASS_VERSION, CLASS_DATA = "__classname__", "__version__", "__data__"
NOT_TAKEN = "__not_taken__"
"""The key beside the fields of an object that has ``{name: whether it is the class's default}``."""

_PLAIN = (type(None), bool, int, float, str)
_NUMPY = frozenset(
    {f"{sign}int{size}" for sign in ("", "u") for size in (8, 16, 32, 64)}
    | {"float16", "float32", "float64", "bool", "bool_"}
)
"""The scalars of numpy that Airflow's XCom takes and keeps exactly."""


@dataclasses.dataclass(frozen=True, slots=True)
class ClassValue:
    """A value by the name of its class: ``data`` is a plain value, or has more such values in it.

    With ``by_field``, ``data`` is a dict of the value's fields, and has ``NOT_TAKEN`` if need be.
    """

    classname: str
    version: int
    data: Any
    by_field: bool = False


def node(classname: str, version: int, data: Any) -> dict[str, Any]:
    """What stands for such a value in JSON."""
    return {CLASS: classname, CLASS_VERSION: version, CLASS_DATA: data}


def class_value(value: Any) -> ClassValue | None:
    """How ``value`` is kept by the name of its class; None if it is not.

    What the value's own methods raise is raised unchanged.
    """
    kind = type(value)
    match value:
        case decimal.Decimal():
            return ClassValue("decimal.Decimal", 1, str(value))
        case uuid.UUID():
            return ClassValue("uuid.UUID", 1, str(value))
        case dt.datetime():
            return _moment(value)
        case dt.date():
            return ClassValue("datetime.date", 2, value.isoformat())
        case dt.timedelta():
            seconds = value.total_seconds()
            if kind is not dt.timedelta and dt.timedelta(seconds=seconds) != value:
                raise ValueError("it has nanoseconds: return plain numbers instead")
            return ClassValue("datetime.timedelta", 2, seconds)
        case zoneinfo.ZoneInfo() if value.key:
            return ClassValue("zoneinfo.ZoneInfo", 1, value.key)
        case _ if kind.__module__ == "numpy" and kind.__name__ in _NUMPY:
            return ClassValue(f"numpy.{kind.__name__}", 1, value.item())
        case _ if kind.__name__ == "DataFrame" and kind.__module__.partition(".")[0] == "pandas":
            return ClassValue(f"{kind.__module__}.{kind.__qualname__}", 1, _parquet(value))
        case _:
            return _of_own_class(value)


def _of_own_class(value: Any) -> ClassValue | None:
    kind = type(value)
    model = _is_model(kind)
    methods = hasattr(kind, "serialize") and hasattr(kind, "deserialize")
    if not (model or methods or fields_of(value) is not None):
        return None
    name = f"{kind.__module__}.{kind.__qualname__}"
    version = getattr(kind, "__version__", 0)
    if not _can_be_imported(kind) or not isinstance(version, int):
        return ClassValue("", 0, value.model_dump(mode="json")) if model else None
    if model:
        return ClassValue(name, 1, value.model_dump(mode="json"))
    if methods:
        return ClassValue(name, version, value.serialize())
    return ClassValue(name, version, _parts(value), by_field=True)


def _parts(value: Any) -> dict[str, Any]:
    """The fields of ``value``, those that its class takes by the names that it takes."""
    fields = _fields(type(value)) or ()
    parts = {one.taken or one.name: getattr(value, one.name) for one in fields}
    others = {
        one.name: type(parts[one.name]) in _PLAIN and parts[one.name] == one.default
        for one in fields
        if not one.taken
    }
    return {**parts, NOT_TAKEN: others} if others else parts


def fields_of(value: Any) -> dict[str, Any] | None:
    """The fields of an instance of a dataclass or of an attrs class, by name; None for others."""
    fields = _fields(type(value))
    return None if fields is None else {one.name: getattr(value, one.name) for one in fields}


@dataclasses.dataclass(frozen=True, slots=True)
class _Field:
    """A field ``name``, which the class takes as the argument ``taken``; empty if it does not."""

    name: str
    taken: str
    default: Any


def _fields(kind: type) -> tuple[_Field, ...] | None:
    if dataclasses.is_dataclass(kind):
        return tuple(
            _Field(one.name, one.name if one.init else "", one.default)
            for one in dataclasses.fields(kind)
        )
    attributes = getattr(kind, "__attrs_attrs__", None)
    if attributes is None:
        return None
    return tuple(_Field(one.name, one.alias if one.init else "", one.default) for one in attributes)


def _is_model(kind: type) -> bool:
    """Whether it is a pydantic model, found as Airflow finds it."""
    found = hasattr(kind, "__pydantic_fields__") and hasattr(kind, "__pydantic_validator__")
    return found and not dataclasses.is_dataclass(kind)


def _can_be_imported(kind: type) -> bool:
    module, name = sys.modules.get(kind.__module__), kind.__qualname__
    if kind.__module__ == "__main__" or not name.isidentifier():
        return False
    return getattr(module, name, None) is kind


def _moment(value: dt.datetime) -> ClassValue:
    """ISO 8601 text, with the name of the time zone in brackets if it has one.

    What pandas has beyond a datetime has no class: the moment that is none, and nanoseconds.
    """
    text = value.isoformat()
    if text == "NaT":
        return ClassValue("", 0, None)
    if type(value) is not dt.datetime and dt.datetime.fromisoformat(text).isoformat() != text:
        return ClassValue("", 0, text)
    zone = getattr(value.tzinfo, "key", None) or getattr(value.tzinfo, "zone", None)
    text = f"{text}[{zone}]" if isinstance(zone, str) else text
    return ClassValue("datetime.datetime", 2, text)


def _parquet(value: Any) -> str:
    """A data frame as Airflow keeps it (3.3): a Parquet file, in hexadecimal digits."""
    import pyarrow as pa
    from pyarrow import parquet

    out = pa.BufferOutputStream()
    parquet.write_table(pa.Table.from_pandas(value), out, compression="snappy")
    return str(out.getvalue().hex().decode())
