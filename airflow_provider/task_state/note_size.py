"""Keeps the value of the key ``elastic`` small, and its texts fit to be shown.

Sizes are bytes of JSON as Airflow counts them: ``len(json.dumps(value))``, where a character that
is not ASCII takes 6 bytes or 12. This module may import only the standard library, the curves, and
``llutil.system``.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from typing import Any

from airflow_provider.task_state.curves import thinned
from llutil.system.printable import printable_lines

__all__ = ["LIMIT", "LONGEST_TEXT", "fitted", "json_size", "shown", "shown_text"]

LIMIT = 64_000
"""Bytes of a value. Airflow warns above 65,535, by default."""

LONGEST_TEXT = 1000
"""Bytes of a text."""

_LONGEST_OF = {"report": 16_000, "label": 200, "host": 200, "nodes": 200, "metrics": 120}
"""Bytes of the texts in fields of these names."""

_LONGEST_SECRET = 5000
"""Characters at the end of a very long text that are not shown, since a secret may be cut there."""

_COLOUR = re.compile(r"\x1b\[[0-9;:]{0,64}m")
_USER_INFO = re.compile(r"(?<=://)[^\s/@:]{0,300}:[^\s/@]{0,300}@")


def shown(value: Any, hide: Callable[[str], str], field: str = "") -> Any:
    """``value`` with all its texts fit to be shown, and all numbers such as JSON knows."""
    match value:
        case str():
            return shown_text(value, _LONGEST_OF.get(field, LONGEST_TEXT), hide)
        case float() if not math.isfinite(value):
            return str(value)
        case dict() if field == "metrics":
            longest = _LONGEST_OF[field]
            return {
                shown_text(name, longest, hide): shown(points, hide)
                for name, points in value.items()
            }
        case dict():
            return {name: shown(one, hide, name) for name, one in value.items()}
        case list() | tuple():
            return [shown(one, hide, field) for one in value]
        case _:
            return value


def shown_text(text: str, most: int, hide: Callable[[str], str]) -> str:
    """``text`` without secrets, colours and characters that no line may have, cut to ``most``
    bytes. Secrets go first: half of one at the end of a cut text would not be known for one.
    """
    head = text[: 2 * most + _LONGEST_SECRET]
    safe = _USER_INFO.sub("***@", hide(head)).encode(errors="replace").decode()
    if len(head) < len(text):
        safe = safe[:-_LONGEST_SECRET]
    plain = "\n".join(printable_lines(_COLOUR.sub("", safe[: 2 * most])))
    cut = _cut(plain, most - 4)
    whole = cut == plain and len(safe) <= 2 * most and len(head) == len(text)
    return cut if whole else f"{cut} ..."


def _cut(text: str, most: int) -> str:
    """The longest beginning of ``text`` that takes at most ``most`` bytes."""
    text = text[:most]
    if json_size(text) - 2 <= most:
        return text
    low, high = 0, len(text)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if json_size(text[:middle]) - 2 <= most else (low, middle - 1)
    return text[:low]


def json_size(value: object) -> int:
    """Bytes of ``value`` as JSON, as Airflow counts them."""
    return len(json.dumps(value))


def fitted(note: dict[str, Any], limit: int) -> dict[str, Any]:
    """``note``, cut step by step until it fits; ``left_out`` in it names what was cut."""
    for names, cut in _CUTS:
        if json_size(note) <= limit:
            return note
        cut(note)
        note["left_out"] = [*note["left_out"], *(n for n in names if n not in note["left_out"])]
    if json_size(note) <= limit:
        return note
    kept = ("version", "time", "every", "try", "doing", "succeeded", "left_out")
    return {name: note[name] for name in kept}


def _thin(note: dict[str, Any], most: int) -> None:
    metrics = note["curves"]["metrics"]
    for name, points in metrics.items():
        metrics[name] = thinned(points, most)


def _forget_nodes(note: dict[str, Any], rounds: int) -> None:
    for one in note["rounds"][: len(note["rounds"]) - rounds]:
        one["nodes"] = []


def _last(note: dict[str, Any], name: str, most: int) -> None:
    note[name] = note[name][len(note[name]) - min(most, len(note[name])) :]


def _cut_report(note: dict[str, Any], most: int, ranks: int) -> None:
    failure = note["failure"]
    if failure is not None:
        failure["report"] = _cut(failure["report"], most)
        # The culprit is the first one, or will be.
        failure["ranks"] = sorted(failure["ranks"], key=lambda one: not one["culprit"])[:ranks]


def _cut_texts(note: dict[str, Any], most: int) -> None:
    for one in (note, note["checkpoints"], note["failure"] or {}, *note["rounds"]):
        for name, value in one.items():
            if isinstance(value, str):
                one[name] = _cut(value, most)


def _forget_all(note: dict[str, Any]) -> None:
    note["curves"]["metrics"], note["ranks"] = {}, []
    _last(note, "rounds", 3)
    note["checkpoints"]["committed"] = note["checkpoints"]["committed"][-1:]


_CUTS: tuple[tuple[tuple[str, ...], Callable[[dict[str, Any]], None]], ...] = (
    (("nodes",), lambda note: _forget_nodes(note, 10)),
    (("curves",), lambda note: _thin(note, 100)),
    (("nodes",), lambda note: _forget_nodes(note, 2)),
    (("curves",), lambda note: _thin(note, 50)),
    (("rounds",), lambda note: _last(note, "rounds", 20)),
    (("report",), lambda note: _cut_report(note, 6000, 16)),
    (("ranks",), lambda note: note.update(ranks=note["ranks"][:64])),
    (("nodes",), lambda note: _forget_nodes(note, 0)),
    (("curves",), lambda note: _thin(note, 20)),
    (("texts",), lambda note: _cut_texts(note, 300)),
    (("curves", "ranks", "rounds", "committed"), _forget_all),
)
"""What is cut first comes first; and the names of it in ``left_out``."""
