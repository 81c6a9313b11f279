"""Where the conversion of a value is, what it has used of its limit, and how it tells a problem.

This module may import only the standard library and ``llutil.errors``.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from llutil.errors import ResultError

__all__ = ["PlaceInValue", "TooBigError", "type_name"]

# Containers within containers. Airflow's API takes 200 in all (measured with Airflow 3.3.2).
_DEEPEST = 100


class TooBigError(ResultError):
    """The value takes more bytes than its limit."""


class PlaceInValue:
    """The present place in a value, the containers around it, and how many bytes the JSON takes at
    least. Texts begin with ``prefix``.
    """

    def __init__(self, prefix: str, limit: int) -> None:
        self.limit = limit
        self.bytes = 0
        self.path = ["value"]
        self._prefix = prefix
        self._containers: list[int] = []

    @contextmanager
    def inside(self, value: object, levels: int = 1) -> Iterator[None]:
        """The parts of ``value`` follow, which takes so many ``levels`` of containers in JSON."""
        if id(value) in self._containers:
            raise self.error("contains itself, which JSON cannot express: return its parts")
        if len(self._containers) + levels > _DEEPEST:
            raise self.error(f"is nested more than {_DEEPEST} deep: return it flatter")
        self._containers += [id(value)] * levels
        yield
        del self._containers[-levels:]

    def count(self, size: int) -> None:
        """Count bytes that the JSON will have at least, to stop before lists fill the memory."""
        self.bytes += size
        if self.bytes > self.limit:
            raise self.too_big(f"at least {self.bytes:,}")

    def too_big(self, size: str, part: str = "") -> TooBigError:
        """The value takes ``size`` bytes, more than its limit."""
        return TooBigError(
            f"{self._prefix}the returned value takes {size} bytes as JSON{part}; the limit is "
            f"{self.limit:,}. Raise result_limit, give the task a results_path, or write it to a "
            "file or object store and return its path"
        )

    def refusal(self, value: object, advice: str) -> ResultError:
        """``value``, which is at this place, has a type that cannot be kept."""
        return self.error(f"is {type_name(value)}, which XCom cannot hold: {advice}")

    def error(self, problem: str) -> ResultError:
        """``problem`` with what is at this place."""
        return ResultError(f"{self._prefix}{self.where()} {problem}")

    def where(self) -> str:
        """The place, as a path from the value."""
        path = self.path
        if len(path) > 20:
            path = [*path[:10], "...", *path[-5:]]
        return "".join(path)


def type_name(value: object) -> str:
    """The type of ``value``, as its author would write it."""
    kind = type(value)
    name = kind.__qualname__
    return name if kind.__module__ in ("builtins", "__main__") else f"{kind.__module__}.{name}"
