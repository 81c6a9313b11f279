"""What an option of a rendezvous backend is, and what a value that is given for it means.

A value means the same wherever it is given: to ``launch_agent`` (as Python has it), after
torchrun's ``--rdzv-conf`` (as text), in an Airflow connection's extra, or in Airflow's
configuration. None and empty text mean that nothing was given, since a form leaves them behind.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import KW_ONLY, dataclass
from enum import Enum, StrEnum
from numbers import Integral, Real
from typing import Any, TypeVar

from llutil.errors import Problem
from llutil.secret import concealed

__all__ = ["Kind", "Option", "OptionValue", "Source", "read_options"]

OptionValue = float | int | bool | str
N = TypeVar("N", int, float)

_FLAGS = {
    **dict.fromkeys(("1", "true", "t", "yes", "y"), True),
    **dict.fromkeys(("0", "false", "f", "no", "n"), False),
}
"""What torch takes for true and for false (2.13)."""


class Kind(StrEnum):
    """What an option takes, in the words that tell it to somebody who gave something else."""

    SECONDS = "a positive number of seconds"
    SECONDS_FROM_ZERO = "0 or more seconds"
    COUNT = "a whole number, 0 or more"
    FLAG = "true or false"
    TEXT = "text"

    @property
    def is_duration(self) -> bool:
        """Whether values are seconds."""
        return self in {Kind.SECONDS, Kind.SECONDS_FROM_ZERO}


class Source(Enum):
    """The part of an Airflow connection that an option comes from."""

    EXTRA = "extra"
    LOGIN = "login"
    PASSWORD = "password"  # noqa: S105 - the field's name


@dataclass(frozen=True, slots=True)
class Option:
    """One option. ``text`` says what it is for, to people; ``label`` names it in a form.

    ``default`` None: nothing, or what torch takes. ``secret``: its value is never shown.
    ``source``: where a connection has it. ``of_deployment``: Airflow's configuration may have it.
    """

    key: str
    kind: Kind
    text: str
    _: KW_ONLY
    label: str = ""
    default: OptionValue | None = None
    secret: bool = False
    source: Source = Source.EXTRA
    of_deployment: bool = False


def read_options(
    options: Iterable[Option], given: Mapping[str, object], place: str, owner: str
) -> tuple[dict[str, OptionValue], list[Problem]]:
    """The values of those of ``options`` that are ``given``, and all that is wrong with these.

    ``place`` is where they are given, and ``owner`` who has these options and no others, for
    people.
    """
    known = {option.key: option for option in options}
    values: dict[str, OptionValue] = {}
    problems = []
    if unknown := sorted(str(key) for key in given if key not in known):
        text = (
            f"has {', '.join(map(repr, unknown))}, which {owner} does not know; "
            f"it knows {', '.join(sorted(known))}"
        )
        problems.append(Problem(place, text))
    for key, option in known.items():
        value = given.get(key)
        if value is None or value == "":
            continue
        meant = _meaning(option.kind, value)
        if meant is None:
            found = f"a {type(value).__name__}" if option.secret else repr(value)
            problems.append(Problem(place, f"has {key!r}: {found}; wanted {option.kind}"))
        else:
            values[key] = concealed(meant) if option.secret else meant
    return values, problems


def _meaning(kind: Kind, value: object) -> OptionValue | None:
    match kind:
        case Kind.SECONDS:
            return _number(float, Real, value) or None
        case Kind.SECONDS_FROM_ZERO:
            return _number(float, Real, value)
        case Kind.COUNT:
            return _number(int, Integral, value)
        case Kind.FLAG:
            return _FLAGS.get(str(value).lower()) if isinstance(value, int | str) else None
        case Kind.TEXT:
            return value if isinstance(value, str) else None


def _number(make: Callable[[Any], N], kind: type, value: object) -> N | None:
    """The number that ``value`` is or says, from 0 on."""
    if isinstance(value, bool) or not isinstance(value, kind | str):
        return None
    try:
        number = make(value)
    except (ValueError, OverflowError):
        return None
    return number if 0 <= number < math.inf else None
