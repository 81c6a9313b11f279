"""Faults as text: ``kill(rank=1, step=5), cut(node=0, seconds=20)``.

A configuration holds them so on its way to the agent, and a rank's environment, too. This module
may import only the standard library, ``llutil.errors`` and the values beside it: parsing a DAG runs
it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import MISSING, fields
from typing import Any, get_args

from llutil.chaos.by_seed import RANDOM, random_faults
from llutil.chaos.faults import FIELD, KINDS, Fault, wanted
from llutil.errors import ConfigError, Problem

__all__ = ["all_faults", "faults_in", "texts_of"]

_CALL = re.compile(r"([A-Za-z_]\w*)\s*\(([^()]*)\)", re.ASCII)
_BETWEEN = re.compile(r"[\s,;]*")
_WHOLE = re.compile(r"-?[0-9]{1,18}")
_NUMBER = re.compile(r"-?(?:[0-9]{1,18}(?:\.[0-9]{0,18})?|\.[0-9]{1,18})(?:e-?[0-9]{1,3})?")
# Characters of a text that an error shows.
_SHOWN = 80
_RANDOM_WANTED = f"{RANDOM}(seed=..., ranks=..., steps=..., count=3, nodes=1, kinds=kill+oom+slow)"


def texts_of(given: Any) -> Any:
    """What a user gave as faults, as a tuple of texts. Whatever is no fault and no text stays as it
    is, for the checks to refuse.
    """
    if given is None:
        return ()
    if isinstance(given, str) or _is_fault(given):
        given = (given,)
    if not isinstance(given, list | tuple | set | frozenset):
        return given
    return tuple(str(one) if _is_fault(one) else one for one in given)


def faults_in(text: str) -> list[Fault]:
    """The faults that ``text`` asks for, in its order.

    :raises ConfigError: it asks for something else. The text lists all problems.
    """
    found: list[Fault] = []
    problems: list[Problem] = []
    position = 0
    while (position := _next_word(text, position)) < len(text):
        call = _CALL.match(text, position)
        if call is None:
            shown = text[position : position + _SHOWN]
            examples = "kill(rank=1, step=5), cut(node=0, seconds=20)"
            problems.append(Problem(FIELD, f"has {shown!r}; wanted faults such as {examples}"))
            break
        position = call.end()
        try:
            found += _called(call[1], call[2])
        except ConfigError as error:
            problems += error.problems
    if problems:
        raise ConfigError(problems)
    return found


def all_faults(texts: Iterable[object]) -> Iterator[Fault]:
    """The faults of a configuration, which was checked."""
    for text in texts:
        yield from faults_in(str(text))


def _next_word(text: str, position: int) -> int:
    between = _BETWEEN.match(text, position)
    return position if between is None else between.end()


def _called(name: str, inside: str) -> Iterable[Fault]:
    shown = f"{name}({inside})"[:_SHOWN]
    kind = KINDS.get(name)
    if kind is None and name != RANDOM:
        known = ", ".join([*KINDS, RANDOM])
        text = f"has {shown!r}: there is no fault {name!r}; wanted one of {known}"
        raise ConfigError(Problem(FIELD, text))
    form = _RANDOM_WANTED if kind is None else wanted(kind)
    given: dict[str, str] = {}
    for part in inside.split(",") if inside.strip() else []:
        key, equals, value = (piece.strip() for piece in part.partition("="))
        if not equals or not key or key in given:
            raise ConfigError(Problem(FIELD, f"has {shown!r}; wanted {form}"))
        given[key] = value
    return _random(shown, given) if kind is None else [_fault(kind, shown, given)]


def _fault(kind: type[Fault], shown: str, given: Mapping[str, str]) -> Fault:
    known = {one.name: one for one in fields(kind)}
    missing = [name for name, one in known.items() if one.default is MISSING and name not in given]
    if missing or not given.keys() <= known.keys():
        raise ConfigError(Problem(FIELD, f"has {shown!r}; wanted {wanted(kind)}"))
    values = {
        name: _number(shown, name, value, whole=known[name].type == "int")
        for name, value in given.items()
    }
    return kind(**values)


def _random(shown: str, given: Mapping[str, str]) -> Iterable[Fault]:
    least, most = {"seed", "ranks", "steps"}, {"count", "nodes", "kinds"}
    if not least <= given.keys() <= least | most:
        raise ConfigError(Problem(FIELD, f"has {shown!r}; wanted {_RANDOM_WANTED}"))
    values: dict[str, Any] = {
        name: _number(shown, name, value, whole=True)
        for name, value in given.items()
        if name != "kinds"
    }
    if "kinds" in given:
        values["kinds"] = tuple(one.strip() for one in given["kinds"].split("+"))
    return random_faults(**values)


def _number(shown: str, name: str, text: str, *, whole: bool) -> Any:
    if _WHOLE.fullmatch(text):
        return int(text)
    if whole or not _NUMBER.fullmatch(text):
        what = "a whole number" if whole else "a number"
        raise ConfigError(Problem(FIELD, f"has {shown!r}: {name} is {text!r}; wanted {what}"))
    return float(text)


def _is_fault(given: object) -> bool:
    return isinstance(given, get_args(Fault))
