"""The metrics that ranks report with their steps: a few numbers a rank, by name.

Each rank has room for ``COUNT`` numbers and their names. A longer name is cut; if its beginning is
taken already, it ends with ``~2``, ``~3``, ... A rank writes a name and its first value before it
counts up how many it has, so a reader sees only whole names. This module may import only the
standard library and ``llutil.events.rank_slot``.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from typing import Any

from llutil.events.rank_slot import Slot

__all__ = ["COUNT", "SIZE", "RankMetrics"]

COUNT = 8
"""How many metrics a rank has room for."""
# Bytes for a name.
_NAME = 32
SIZE = COUNT * (8 + _NAME)
"""The size of a rank's metrics, in bytes."""
# Nanoseconds between two looks at a value that is no plain number, as at a tensor: that may wait
# for a GPU.
_SELDOM = 1_000_000_000

_log = logging.getLogger(__name__)


class RankMetrics:
    """The metrics of one rank. ``room`` is its part of the page, of ``SIZE`` bytes."""

    def __init__(self, slot: Slot, room: memoryview) -> None:
        self._slot = slot
        self._values = room[: COUNT * 8].cast("d")
        self._names = room[COUNT * 8 :]
        self._index: dict[str, int] = {}
        self._shown: set[str] = set()
        self._left_out: set[str] = set()
        self._looked: dict[str, int] = {}

    def write(self, metrics: Mapping[str, Any]) -> None:
        """Write these values; others stay.

        What is no plain number is converted by ``float``, and only once a second.

        :raises TypeError: a value cannot be converted.
        """
        for name, value in metrics.items():
            if type(value) is float:
                try:
                    self._values[self._index[name]] = value
                except KeyError:
                    self._add(name, value)
            else:
                self._convert(name, value)

    def read(self) -> dict[str, float]:
        """The values by name."""
        read = {}
        for index in range(min(self._slot.metrics, COUNT)):
            name = bytes(self._names[index * _NAME : (index + 1) * _NAME]).rstrip(b"\0")
            read[name.decode(errors="ignore")] = float(self._values[index])
        return read

    def _convert(self, name: str, value: Any) -> None:
        if type(value) is not int:
            now = time.monotonic_ns()
            if now - self._looked.get(name, -_SELDOM) < _SELDOM:
                return
            self._looked[name] = now
        try:
            number = float(value)
        except (TypeError, ValueError, OverflowError) as error:
            raise TypeError(
                f"the metric {name} is {value!r}; wanted a number, or what float() takes"
            ) from error
        self._add(name, number)

    def _add(self, name: str, value: float) -> None:
        index = self._index.get(name)
        if index is None:
            if len(self._index) == COUNT:
                if name not in self._left_out:
                    self._left_out.add(name)
                    _log.warning("the metric %s is left out: there is room for %d", name, COUNT)
                return
            index = self._index[name] = len(self._index)
            text = self._show(name).encode().ljust(_NAME, b"\0")
            self._names[index * _NAME : (index + 1) * _NAME] = text
            self._values[index] = value
            self._slot.metrics = index + 1
        self._values[index] = value

    def _show(self, name: str) -> str:
        """The text for ``name`` on the page: no other metric of this rank has it."""
        shown = _cut(name, _NAME)
        number = 1
        while shown in self._shown:
            number += 1
            suffix = f"~{number}"
            shown = _cut(name, _NAME - len(suffix)) + suffix
        self._shown.add(shown)
        if shown != name:
            why = (
                f"a name may have {_NAME} bytes"
                if _cut(name, _NAME) != name
                else "a longer name was cut to it"
            )
            _log.warning("the metric %s is shown as %s: %s", name, shown, why)
        return shown


def _cut(name: str, size: int) -> str:
    """The beginning of ``name``: whole letters, of at most ``size`` bytes."""
    return name.encode()[:size].decode(errors="ignore")
