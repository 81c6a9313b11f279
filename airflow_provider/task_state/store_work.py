"""The requests of one task to its state store: it writes notes, and looks for orders.

Each request may take long. ``turn`` makes those that are due, and says when the next one is. A
value that a newer one has replaced before its turn came is never written. While Airflow does not
answer, requests get rarer: the supervisor of the task makes each of them several times, and does
nothing else meanwhile (Airflow 3.3). A deployment may have a store of its own, whose errors are of
any class. So a key is taken to be refused if the store answers another request at the same time;
else the store is taken not to answer.

Nothing here reads a clock but for the times that people read, and for the end of a request that has
failed, by the clock that is given. It starts no thread.
"""

from __future__ import annotations

import datetime as dt
import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

from airflow_provider.task_state.orders import ANSWER, CONTROL, Order, read_order

__all__ = ["LOOK_PERIOD", "Made", "Store", "StoreWork"]

LOOK_PERIOD = 4.5
"""Seconds between two looks for an order. The agent looks at its flags four times a second, and its
nodes agree in less than that: so an order takes effect within 5 s.
"""

_FIRST_PAUSE, _LONGEST_PAUSE = 10.0, 60.0
"""Seconds until the next request after one that has failed: at first, and at most."""

_TEXTS = 5
"""So many of the last things that came of an order are told."""

_FOREVER = float("inf")


class Store(Protocol):
    """``context["task_state_store"]``, as far as it is used here."""

    def get(self, key: str) -> Any:
        """The value, or None."""

    def set(self, key: str, value: Any) -> None:
        """Write the value, which is not None."""

    def delete(self, key: str) -> None:
        """Delete the key, if it is there."""


@dataclass(frozen=True, slots=True)
class Made:
    """A value that is made when it is written, of what its key held before this task wrote it.

    ``read`` is given that value, once, and ``make`` what ``read`` has returned.
    """

    read: Callable[[Any], Any]
    make: Callable[[Any], Any]


class _StoreError(Exception):
    """The store could not be reached; the text says why."""


class StoreWork:
    """What one task has to do with ``store``. ``obey`` is called with each order, and returns why
    it cannot be carried out, or None; what it raises is not caught.
    """

    def __init__(
        self,
        store: Store,
        obey: Callable[[Order], str | None],
        log: logging.Logger,
        now_for_people: Callable[[], dt.datetime],
    ) -> None:
        self._store = store
        self._obey = obey
        self._log = log
        self._now_for_people = now_for_people
        self._pending: dict[str, Any] = {}
        self._before: dict[str, Any] = {}
        """What ``Made`` values go on from."""
        self._not_before: dict[str, float] = {}
        self._periods: dict[str, float] = {}
        self._wrote: dict[str, float] = {}
        self._next_look = _FOREVER
        self._listened = False
        self._refused: set[str] = set()
        """The keys that the store did not change when asked, while it answered other requests."""
        self._pause = 0.0
        self._paused_until = 0.0
        self._answer: dict[str, Any] = {}

    def listen(self, now: float, *, on: bool) -> None:
        """Look for orders from now on, or no more."""
        if not on:
            self._next_look = _FOREVER
        elif self._next_look == _FOREVER:
            self._listened = True
            self._next_look = now + LOOK_PERIOD

    def write(self, key: str, value: Any, *, period: float, not_before: float = 0.0) -> None:
        """Write ``value``, which may be ``Made``, when ``key`` may be written again: ``period``
        seconds after the time before, and not before ``not_before``.
        """
        self._pending[key] = value
        self._periods[key] = period
        self._not_before[key] = max(self._not_before.get(key, 0.0), not_before)

    def tell(self, text: str) -> None:
        """Something was done in the job. It is added to the answer to the last order."""
        if self._answer:
            texts = [*self._answer.get("then", ()), f"{self._time()} {text}"]
            self._answer = {**self._answer, "then": texts[-_TEXTS:]}
            self.write(ANSWER, self._answer, period=1.0)

    def turn(self, clock: Callable[[], float]) -> float:
        """Do what is due. Returns when there is something to do again, infinity for never.

        ``clock`` tells the time: a request may fail only after a minute, and a pause begins then.
        """
        now = clock()
        try:
            if now >= max(self._next_look, self._paused_until):
                self._next_look = now + LOOK_PERIOD
                self._look()
            elif self._pause and now >= self._paused_until:
                self._ask(self._store.get, CONTROL)
                self._succeed()
            for key in list(self._pending):
                if now >= max(self._due(key), self._paused_until):
                    is_written = self._is_taken(key, partial(self._write, key))
                    self._not_before[key] = 0.0 if is_written else now + _FIRST_PAUSE
                    self._wrote[key] = now
        except _StoreError as error:
            self._fail(clock(), error)
        due = min(map(self._due, self._pending), default=_FOREVER)
        return max(min(due, self._next_look), self._paused_until)

    def finish(self, *, succeeded: bool) -> None:
        """Write what has not been written, each once, until two keys have failed. If the job has
        ``succeeded``, an order that came too late is answered: a run after a clear, long after,
        must not find it.
        """
        try:
            if succeeded and self._listened:
                self._refuse_late_order()
            unwritten = self._write_each()
        except _StoreError as error:
            unwritten = error
        if unwritten is not None:
            self._log.warning("the task's state is not up to date: %s", unwritten)

    def _ask(self, request: Callable[..., Any], *arguments: Any) -> Any:
        """What the store answers to ``request``.

        :raises _StoreError: it does not answer.
        """
        try:
            return request(*arguments)
        except Exception as error:
            raise _StoreError(f"{type(error).__name__}: {error}") from error

    def _due(self, key: str) -> float:
        """When ``key`` may be written, by the period of its newest value."""
        return max(self._not_before[key], self._wrote.get(key, -_FOREVER) + self._periods[key])

    def _look(self) -> None:
        value = self._ask(self._store.get, CONTROL)
        self._succeed()
        if value is None:
            return
        # First of all: an order that is carried out must never be found again, by a next try.
        if not self._is_taken(CONTROL, partial(self._ask, self._store.delete, CONTROL)):
            return
        order = read_order(value)
        if isinstance(order, str):
            self._log.warning("the key %r of the task's state %s", CONTROL, order)
            self._answer_with(value, {"refused": order})
            return
        refused = self._obey(order)
        if refused is not None:
            self._log.warning("%s, but %s", order.why, refused)
            self._answer_with(value, {"refused": refused})
            return
        self._log.info("%s; %s is raised for all nodes", order.why, order.flag)
        self._answer_with(value, {"understood": order.word})

    def _refuse_late_order(self) -> None:
        late = self._ask(self._store.get, CONTROL)
        if late is not None:
            self._ask(self._store.delete, CONTROL)
            self._answer_with(late, {"refused": "the job had ended"})

    def _answer_with(self, value: object, more: dict[str, Any]) -> None:
        asked = value if isinstance(value, str | dict) else repr(value)
        shown = asked if len(str(asked)) <= 1000 else f"{str(asked)[:1000]} ..."
        self._answer = {"asked": shown, "taken": self._time(), **more}
        self.write(ANSWER, self._answer, period=1.0)
        self._not_before[ANSWER] = 0.0
        self._wrote.pop(ANSWER, None)

    def _is_taken(self, key: str, change: Callable[[], None]) -> bool:
        """Make a change of ``key``. False if the store does not take it, though it answers.

        :raises _StoreError: it does not answer.
        """
        try:
            change()
        except _StoreError as error:
            self._ask(self._store.get, CONTROL)
            if key not in self._refused:
                self._refused.add(key)
                self._log.warning(
                    "the key %r of the task's state cannot be changed: %s. The other keys are kept "
                    "up to date; this one is tried again, without a word",
                    key,
                    error,
                )
            return False
        return True

    def _write_each(self) -> _StoreError | None:
        """Write all keys, until two have failed. Returns why the first of them failed that was not
        refused before.
        """
        failed = 0
        first: _StoreError | None = None
        for key in sorted(self._pending, key=self._refused.__contains__):
            try:
                self._write(key)
            except _StoreError as error:
                failed += 1
                if first is None and key not in self._refused:
                    first = error
                if failed > 1:
                    break
        return first

    def _write(self, key: str) -> None:
        value = self._pending[key]
        if isinstance(value, Made):
            if key not in self._before:
                self._before[key] = value.read(self._ask(self._store.get, key))
            value = self._made(key, value)
        if value is not None:
            self._ask(self._store.set, key, value)
        del self._pending[key]
        self._succeed()

    def _made(self, key: str, value: Made) -> Any:
        try:
            return value.make(self._before[key])
        except Exception:  # noqa: BLE001 - it is logged
            # People must be able to steer a job that cannot be shown.
            self._log.exception("the key %r of the task's state is not written", key)
            return None

    def _succeed(self) -> None:
        if self._pause:
            self._log.info("the task's state can be reached again")
        self._pause = self._paused_until = 0.0

    def _fail(self, now: float, error: _StoreError) -> None:
        if not self._pause:
            self._log.warning(
                "the task's state cannot be reached: %s. The job goes on; nobody can steer it by "
                "the key %r meanwhile",
                error,
                CONTROL,
            )
        self._pause = min(max(2 * self._pause, _FIRST_PAUSE), _LONGEST_PAUSE)
        self._paused_until = now + self._pause

    def _time(self) -> str:
        return self._now_for_people().astimezone(dt.UTC).isoformat(timespec="seconds")
