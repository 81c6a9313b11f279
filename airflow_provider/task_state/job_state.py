"""``JobState``: keeps a task's state while its jobs run, and passes on what people order there.

Only the task instance whose agent has rank 0 looks for orders: one request in 4.5 seconds for a
job, however many nodes it has. It writes what it has to say at once; the others write the more
rarely the more nodes there are, and begin at different times.
"""

from __future__ import annotations

import datetime as dt
import logging
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import replace

from airflow_provider.agent_client.job_listener import JobListener, Steer
from airflow_provider.task_state.elastic_key import ElasticKey
from airflow_provider.task_state.elastic_note import Ended, LaunchFacts
from airflow_provider.task_state.note_size import LIMIT, LONGEST_TEXT, shown_text
from airflow_provider.task_state.notes import (
    CHECKPOINT,
    PROGRESS,
    STATE,
    checkpoint_note,
    progress_note,
    state_note,
    write_period,
)
from airflow_provider.task_state.orders import Order
from airflow_provider.task_state.store_thread import StoreThread
from airflow_provider.task_state.store_work import Store, StoreWork
from llutil.progress.pace import Steps
from llutil.task_link.job_events import JobEvent, Progress, RoundBegan, Saved, Steered, Stopped

__all__ = ["JobState"]

_LEAVE_WITHIN = 15.0
"""Seconds that the end of a task waits for its state to be written."""

_SETTLED = 2.0
"""Seconds for which a state of the job must last to be told: so a short job says less."""

_AT_ONCE = 1.0
"""Seconds between two writes of what the task with rank 0 has to say at once."""


class JobState(JobListener):
    """The state of one try of a task. It hears of one job after the other, as a ``JobListener``.

    :param hide: takes secrets out of a text.
    :param limit: bytes of the key ``elastic``, as JSON.
    """

    def __init__(
        self,
        store: Store,
        log: logging.Logger,
        facts: LaunchFacts,
        *,
        hide: Callable[[str], str] = str,
        limit: int = LIMIT,
    ) -> None:
        self._hide = hide
        self._try_number = facts.try_number
        self._folder = shown_text(facts.folder or "", LONGEST_TEXT, hide)
        self._steer: Steer | None = None
        self._thread = StoreThread(StoreWork(store, self._obey, log, _now), log)
        self._elastic = ElasticKey(facts, self._thread, log, hide, limit)
        self._hears = False
        self._world_size = 0
        self._period = _LEAVE_WITHIN
        self._steps: Steps = {}
        self._metrics: Mapping[str, float] = {}
        self._noted: tuple[float, Steps] | None = None
        """When progress was last noted, and how far ranks were."""
        self._stopped: Stopped | None = None
        self._last_order: Order | None = None
        self._written: set[str] = set()

    def begin(self, steer: Steer) -> None:
        """See ``JobListener``."""
        self._steer = steer
        self._stopped = None
        self._elastic.begin()

    def hear(self, event: JobEvent) -> None:
        """See ``JobListener``."""
        self._elastic.hear(event, _now())
        match event:
            case RoundBegan(ranks=()):
                self._note_progress()
                self._noted = None
                self._listen(on=False)
                self._tell("waits for the next round", delay=_SETTLED)
            case RoundBegan(world_size=world_size, ranks=ranks):
                self._world_size = world_size
                self._period = write_period(world_size, len(ranks))
                self._steps, self._noted = {}, None
                self._listen(on=0 in ranks)
                self._tell("runs", delay=_SETTLED)
            case Progress(ranks=ranks) if not ranks:
                pass  # it is not shown for now
            case Progress(ranks=ranks, metrics=metrics):
                self._steps, self._metrics = dict(ranks), metrics
                if self._noted is None:
                    self._noted = time.monotonic(), self._steps
                elif time.monotonic() >= self._noted[0] + self._period:
                    self._note_progress()
            case Saved(step=step, path=""):
                self._thread.tell(f"the checkpoint of step {step} is committed")
                if self._hears:
                    note = checkpoint_note(step, self._folder, _now())
                    self._thread.write(CHECKPOINT, note, period=self._period)
            case Steered(text=text, now=now):
                self._answer(text)
                if now:
                    self._tell(now)
            case Stopped():
                self._stopped = event
                self._answer(self._words(event))
            case _:
                pass  # it is for the key ``elastic`` alone

    def stop_asked(self, reason: str) -> None:
        """See ``JobListener``. Airflow may kill the task before its job has ended."""
        if self._world_size:
            self._tell(f"ends: {reason}")

    def end(self) -> None:
        """See ``JobListener``."""
        # The agent may have ended without a last word. An order that comes before the next one runs
        # is left for that.
        self._listen(on=False)
        self._steer = None

    def close(self, ended: Ended) -> None:
        """The try has ended. If no worker has run, only the key ``elastic`` tells it."""
        if self._stopped is not None and ended.succeeded:  # a value may be lost after the stop
            ended = replace(ended, outcome=self._words(self._stopped))
        if self._world_size:
            self._note_progress()
            self._tell(ended.outcome)
        self._elastic.end(ended, _now())
        self._thread.close(_LEAVE_WITHIN, succeeded=ended.succeeded)

    def _listen(self, *, on: bool) -> None:
        self._hears = on
        self._thread.listen(on=on)

    def _answer(self, text: str) -> None:
        self._thread.tell(shown_text(text, LONGEST_TEXT, self._hide))

    def _tell(self, text: str, *, delay: float = 0.0) -> None:
        note = state_note(
            shown_text(text, LONGEST_TEXT, self._hide),
            _now(),
            try_number=self._try_number,
            world_size=self._world_size,
            hears=self._hears,
        )
        self._write(STATE, note, period=_AT_ONCE if self._hears else self._period, delay=delay)

    def _note_progress(self) -> None:
        if not self._steps:
            return
        now = time.monotonic()
        began, before = self._noted or (now, self._steps)
        self._noted = now, self._steps
        note = progress_note(self._steps, now - began, before, self._metrics, _now())
        self._write(PROGRESS, note, period=self._period)

    def _write(self, key: str, note: object, *, period: float, delay: float = 0.0) -> None:
        if not (self._hears or key in self._written):
            delay += _share_of(period)
        self._written.add(key)
        self._thread.write(key, note, period=period, delay=delay)

    def _obey(self, order: Order) -> str | None:
        # In the thread of the store, which may have read the order just before the job ended.
        if (steer := self._steer) is None:
            return "no ranks run at the moment: ask again when they do"
        self._last_order = order
        steer([order.flag], order.why)
        return None

    def _words(self, stopped: Stopped) -> str:
        at = "" if stopped.step is None else f" after step {stopped.step}"
        order = self._last_order
        by = f" ({order.why})" if order is not None and order.word == "stop" else ""
        return f"was stopped{at}: {stopped.why}{by}"


def _share_of(period: float) -> float:
    return period * random.random()  # noqa: S311 - so that nodes do not write together


def _now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)
