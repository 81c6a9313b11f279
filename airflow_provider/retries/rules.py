"""Decides whether another try follows a failure, after how long, and why. Each class of failures
has a row of rules.

Functions here only decide: they take the record of the earlier tries and return the new one.
``airflow_provider.retries.policy`` stores the record; ``airflow_provider.retries.lost_try``
classifies a try whose task process was killed. This module may import nothing but the standard
library, ``llutil.errors``, ``llutil.failure`` and the room's ``signature``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Self

from airflow_provider.retries.signature import signature
from llutil.errors import ConfigError, Problem
from llutil.failure import JobFailure

__all__ = ["Decision", "RetryRow", "TriesRecord", "decide"]

_VERSION = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryRow:
    """The rules for failures of one class.

    :param retries: how many retries this class has in all tries of the task together; 0 for none,
        None for as many as the task's ``retries`` allow. There are never more than those.
    :param delay: seconds before the retry; None for the task's ``retry_delay``.
    :param growth: the factor by which each further delay of this class is longer.
    :param longest: the longest delay, in seconds.
    :param alike: the task fails for good after so many failures in a row with the same traceback,
        if no rank had reported a step; None for no such rule.

    :raises ConfigError: values are out of range; the text lists all of them.
    """

    retries: int | None = None
    delay: float | None = None
    growth: float = 1.0
    longest: float = 3600.0
    alike: int | None = None

    def __post_init__(self) -> None:
        problems = [
            Problem(f"RetryRow.{name}", f"is {value!r}; wanted {wanted}")
            for name, value, wanted, fits in (
                ("retries", self.retries, "a number from 0, or None", _is_count(self.retries, 0)),
                ("delay", self.delay, "0 or more seconds, or None", _is_from(self.delay, 0)),
                (
                    "growth",
                    self.growth,
                    "a number from 1",
                    _is_from(self.growth, 1, optional=False),
                ),
                (
                    "longest",
                    self.longest,
                    "0 or more seconds",
                    _is_from(self.longest, 0, optional=False),
                ),
                ("alike", self.alike, "a number from 2, or None", _is_count(self.alike, 2)),
            )
            if not fits
        ]
        if problems:
            raise ConfigError(problems)

    def delay_after(self, retried: int) -> float | None:
        """Seconds before the next retry, after ``retried`` retries of this class; None for the
        task's ``retry_delay``.
        """
        if self.delay is None:
            return None
        try:
            return min(self.delay * self.growth**retried, self.longest)
        except OverflowError:
            return self.longest


@dataclass(frozen=True, slots=True, kw_only=True)
class TriesRecord:
    """What is known of the tries of one task instance in one of its lives. A new life begins when
    the instance is cleared after it has ended.

    ``life`` is Airflow's ``max_tries``: such a clear raises it, and nothing else changes it (3.3).
    ``try_number`` is the last try that began, on ``host``, when tasks of its DAG run had been
    cleared ``clears`` times. It is ``open`` until its end is recorded. ``retried`` counts the
    retries by class of failure. The last ``alike`` failures had the traceback ``signature``, and no
    rank had reported a step.
    """

    life: int = 0
    try_number: int = 0
    open: bool = False
    host: str = ""
    clears: int = 0
    retried: Mapping[str, int] = field(default_factory=dict)
    signature: str = ""
    alike: int = 0

    def in_life(self, life: int) -> TriesRecord:
        """This record if it is of ``life``; else a new one."""
        return self if self.life == life else TriesRecord(life=life)

    def begun(self, try_number: int, host: str, clears: int) -> TriesRecord:
        """The record after a try has begun."""
        return replace(self, try_number=try_number, host=host, clears=clears, open=True)

    def closed(self) -> TriesRecord:
        """The record after the last try has ended in a way that no row is about."""
        return replace(self, open=False, signature="", alike=0)

    def to_json(self) -> dict[str, Any]:
        """The record as it is stored in the task's state store."""
        return {
            "version": _VERSION,
            "life": self.life,
            "try_number": self.try_number,
            "open": self.open,
            "host": self.host,
            "clears": self.clears,
            "retried": dict(self.retried),
            "signature": self.signature,
            "alike": self.alike,
        }

    @classmethod
    def from_json(cls, value: Any) -> Self:
        """The record in a value of ``to_json``.

        :raises ValueError: the value is not a record, or has another version.
        """
        if not isinstance(value, Mapping) or value.get("version") != _VERSION:
            raise ValueError(f"wanted a record of version {_VERSION}, found {value!r:.200}")
        plain = cls()
        names = [
            name
            for name in cls.__slots__
            if name in value and type(value[name]) is type(getattr(plain, name))
        ]
        if len(names) != len(cls.__slots__) or not all(
            _is_count(count, 0) and count is not None for count in value["retried"].values()
        ):
            raise ValueError(
                f"wanted a record with {', '.join(cls.__slots__)}, found {value!r:.200}"
            )
        return cls(**{name: value[name] for name in names})


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """Whether another try follows (``again``), after how many seconds (``delay``; None: the task's
    ``retry_delay``), why, and the new ``record``.
    """

    again: bool
    why: str
    record: TriesRecord
    delay: float | None = None


def decide(
    row: RetryRow,
    record: TriesRecord,
    job_failure: JobFailure,
    *,
    tries_left: int,
    asked: bool = True,
) -> Decision:
    """Decide what follows a failure, by the ``row`` of its class and the ``record`` of the tries.

    ``tries_left``: how many more tries Airflow grants. ``asked``: False if Airflow did not ask, but
    has begun the next try by itself.
    """
    name, told = str(job_failure.failure_class), job_failure.why
    trace = signature(job_failure.failure)
    alike = (record.alike + 1 if trace == record.signature else 1) if trace else 0
    record = replace(record, open=False, signature=trace, alike=alike)
    what = f"{name} ({told})" if told else name
    if row.alike is not None and record.alike >= row.alike:
        return Decision(
            again=False,
            why=f"{what}: not tried again: the same traceback {record.alike} times in a row, and "
            "no rank had reported a step of progress",
            record=record,
        )
    retried = record.retried.get(name, 0)
    if row.retries is not None and retried >= row.retries:
        spent = (
            f"all retries of its class ({row.retries}) are used up"
            if row.retries
            else "its class has none"
        )
        return Decision(again=False, why=f"{what}: not tried again: {spent}", record=record)
    if tries_left <= 0:
        return Decision(
            again=False,
            why=f"{what}: not tried again: all retries of the task are used up",
            record=record,
        )
    delay = row.delay_after(retried)
    of = f" of {row.retries}" if row.retries is not None else ""
    when = f"in {delay:g} s" if delay is not None else "after the task's retry_delay"
    if not asked:
        when = "by this try"
    are = "is" if tries_left == 1 else "are"
    left = f"{tries_left} of the task's retries {are} left with this one"
    return Decision(
        again=True,
        why=f"{what}: tried again {when}: retry {retried + 1}{of} of its class; {left}",
        record=replace(record, retried={**record.retried, name: retried + 1}),
        delay=delay,
    )


def _is_count(value: Any, least: int) -> bool:
    if value is None:
        return True
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _is_from(value: Any, least: float, *, optional: bool = True) -> bool:
    if value is None:
        return optional
    return (
        isinstance(value, int | float)
        and not isinstance(value, bool)
        and least <= value < float("inf")
    )
