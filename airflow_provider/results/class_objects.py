"""From the JSON of what a rank returned to objects: for XCom, and for who reads a stored value.

The JSON names the class of a value that Airflow's XCom gives back as what it was (see
``llutil.serialization.class_values``). What Python itself has is made again. An object of the
user's class is not: this process may lack what its module imports, torch above all. ``for_xcom``
has a stand-in take its place, which Airflow serializes as it does the object itself.

Airflow reads an object of a class only if ``[core] allowed_deserialization_classes`` has it. Of
other classes, the fields are what goes to XCom: nobody could read more there. So it is with an
object that has set a field which its class does not take: Airflow would only call the class.

Airflow and what it brings along are imported inside functions.
"""

from __future__ import annotations

import datetime as dt
import decimal
import importlib.util
import uuid
import zoneinfo
from collections.abc import Callable, Iterable
from contextlib import suppress
from fnmatch import fnmatch
from functools import cache
from typing import Any

from llutil.errors import ResultError
from llutil.serialization.class_values import CLASS, CLASS_DATA, CLASS_VERSION, NOT_TAKEN, node

__all__ = ["for_xcom", "from_json"]

_DECIMAL = "decimal.Decimal"
_LIMIT = 2**63
"""What an integer in XCom has to be below."""


def for_xcom(value: Any, not_allowed: Callable[[str], object] = lambda _: None) -> Any:
    """``value``, decoded from JSON, for Airflow to serialize.

    ``not_allowed`` is called with the name of each class that Airflow would not read.

    :raises ResultError: there is a data frame, and its libraries are not installed here.
    """

    @cache
    def stand_in(classname: str, version: int) -> type[_StandIn] | None:
        library = classname.partition(".")[0]
        if library == "numpy":
            takes_place = _is_installed(library)
        elif library == "pandas":
            _check_libraries(classname)
            takes_place = True
        else:
            takes_place = classname == _DECIMAL or _is_allowed(classname)
            if not takes_place:
                not_allowed(classname)
        return _stand_in(classname, version) if takes_place else None

    def make(classname: str, version: int, data: Any) -> Any:
        exact = classname != _DECIMAL or _is_exact(decimal.Decimal(data))
        if exact and classname in _OWN:
            return _OWN[classname](data)
        kind = stand_in(classname, version)
        taken, others, alike = _parted(data)
        return kind(taken) if kind is not None and alike else _together(taken, others)

    return _walk(value, make)


def from_json(value: Any) -> Any:
    """The value that was encoded as ``value``, for who reads it from a file.

    An object of a class that Airflow is not allowed to read, or that cannot be imported here, is
    the dict of its fields. So is one with fields that its class does not take, if these cannot be
    set or the class wants more than its fields.

    :raises ModuleNotFoundError: there is a data frame, and its libraries are not installed here.
    """

    def make(classname: str, version: int, data: Any) -> Any:
        if classname in _OWN:
            return _OWN[classname](data)
        from airflow.sdk.serde import deserialize

        taken, others, _ = _parted(data)
        try:
            made = deserialize(node(classname, version, taken))
        except ImportError:
            if classname.partition(".")[0] == "pandas":
                raise  # what there is of a data frame helps nobody
            return _together(taken, others)
        except TypeError:
            if not others:
                raise
            return _together(taken, others)
        try:
            for name, item in others.items():
                object.__setattr__(made, name, item)  # as copy does with what is frozen
        except (AttributeError, TypeError):
            return _together(taken, others)
        return made

    return _walk(value, make)


def _walk(value: Any, make: Callable[[str, int, Any], Any]) -> Any:
    match value:
        case list():
            return [_walk(item, make) for item in value]
        case dict() if CLASS in value:
            return make(value[CLASS], value[CLASS_VERSION], _walk(value[CLASS_DATA], make))
        case dict():
            return {key: _walk(item, make) for key, item in value.items()}
        case _:
            return value


def _parted(data: Any) -> tuple[Any, dict[str, Any], bool]:
    """What a class takes, and its object's other fields; whether all of these are its defaults."""
    if not isinstance(data, dict) or NOT_TAKEN not in data:
        return data, {}, True
    alike = data[NOT_TAKEN]
    fields = {name: item for name, item in data.items() if name != NOT_TAKEN}
    others = {name: fields.pop(name) for name in alike}
    return fields, others, all(alike.values())


def _together(taken: Any, others: dict[str, Any]) -> Any:
    return {**taken, **others} if others else taken


def _collection(make: Callable[[Iterable[Any]], Any]) -> Callable[[Iterable[Any]], Any]:
    """``make``, or a list of what cannot be in a set."""

    def made(items: Iterable[Any]) -> Any:
        try:
            return make(items)
        except TypeError:
            return items

    return made


def _moment(text: str) -> dt.datetime:
    iso, _, zone = text.partition("[")
    moment = dt.datetime.fromisoformat(iso)
    if zone:
        with suppress(zoneinfo.ZoneInfoNotFoundError):
            return moment.astimezone(zoneinfo.ZoneInfo(zone.removesuffix("]")))
    offset = moment.utcoffset()
    if offset:
        from pendulum.tz.timezone import FixedTimezone

        # Airflow (3.3) serializes an offset of pendulum's, and loses one of Python's own.
        return moment.astimezone(FixedTimezone(int(offset.total_seconds())))
    return moment


def _is_exact(number: decimal.Decimal) -> bool:
    """Whether Airflow, which makes a float or an integer of it (3.3), keeps its value."""
    if not number.is_finite():
        return False
    if number.as_tuple().exponent >= 0:  # type: ignore[operator]  # it is finite
        return abs(number) < _LIMIT
    return decimal.Decimal(str(float(number))) == number


_OWN: dict[str, Callable[[Any], Any]] = {
    "builtins.tuple": tuple,
    "builtins.set": _collection(set),
    "builtins.frozenset": _collection(frozenset),
    _DECIMAL: decimal.Decimal,
    "uuid.UUID": uuid.UUID,
    "datetime.date": dt.date.fromisoformat,
    "datetime.datetime": _moment,
    "datetime.timedelta": lambda seconds: dt.timedelta(seconds=float(seconds)),
    "zoneinfo.ZoneInfo": zoneinfo.ZoneInfo,
}
"""How to make a value of Python's own classes again."""


class _StandIn:
    """Airflow serializes an object of a subclass as one of the class whose name that has."""

    def __init__(self, data: Any) -> None:
        self._data = data

    def serialize(self) -> Any:
        """What Airflow keeps of the object. It serializes the values of a dict itself (3.3)."""
        from airflow.sdk.serde import serialize

        return self._data if isinstance(self._data, dict) else serialize(self._data)

    def __repr__(self) -> str:
        return f"{type(self).__qualname__}({self._data!r})"


def _stand_in(classname: str, version: int) -> type[_StandIn]:
    """The class of stand-ins for objects of ``classname``."""
    module, _, name = classname.rpartition(".")
    return type(name, (_StandIn,), {"__module__": module, "__version__": version})


def _check_libraries(classname: str) -> None:
    missing = [library for library in ("pandas", "pyarrow") if not _is_installed(library)]
    if missing:
        raise ResultError(
            f"it holds a {classname}, and {' and '.join(missing)} cannot be imported where Airflow "
            "runs: install it there, or return the frame's to_dict()"
        )


def _is_installed(library: str) -> bool:
    return importlib.util.find_spec(library) is not None


def _is_allowed(classname: str) -> bool:
    """Whether Airflow reads objects of that class, by its configuration."""
    from airflow.sdk import serde
    from airflow.sdk.configuration import conf

    globs = conf.get("core", "allowed_deserialization_classes", fallback="").split()
    # Of the expressions in allowed_deserialization_classes_regexp, Airflow (3.3) has its own view.
    match = getattr(serde, "_match_regexp", lambda _: False)
    return any(fnmatch(classname, one) for one in globs) or bool(match(classname))
