"""Makes the requests to a task's state store in a thread of its own.

The thread that relays a job must never wait for Airflow: then the job's output would wait too, and
in the end its ranks. Requests of both threads go through one socket to the task's supervisor, one
at a time, as Airflow's own lock sees to (3.3).

Where the host has no thread to give, the job goes on without it, and each further request tries
again to start it.

What is asked of the thread goes through a queue whose ``put`` may interrupt itself, so a signal
handler that interrupts the relaying thread does no harm. While a request hangs, the queue does not
grow: it holds each key once, whose newest value is written, and few texts.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable
from typing import Any

from airflow_provider.task_state.store_work import StoreWork

__all__ = ["StoreThread"]

_FOREVER = float("inf")

_MOST_WAIT = 1000
"""With more than that in the queue, no more is told."""


class StoreThread:
    """Works on ``work``, from the first call to ``close``."""

    def __init__(self, work: StoreWork, log: logging.Logger) -> None:
        self._work = work
        self._log = log
        self._asked: queue.SimpleQueue[Callable[[float], None] | None] = queue.SimpleQueue()
        self._ended: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._newest: dict[str, Callable[[float], None]] = {}
        self._queued: set[str] = set()
        self._started = self._succeeded = self._refused = False

    def listen(self, *, on: bool) -> None:
        """Look for orders from now on, or no more."""
        self._ask_newest("", lambda now: self._work.listen(now, on=on))

    def write(self, key: str, value: Any, *, period: float, delay: float = 0.0) -> None:
        """See ``StoreWork.write``; it is not written for ``delay`` seconds."""
        until = time.monotonic() + delay
        self._ask_newest(
            key, lambda _: self._work.write(key, value, period=period, not_before=until)
        )

    def tell(self, text: str) -> None:
        """See ``StoreWork.tell``."""
        if self._asked.qsize() < _MOST_WAIT:
            self._asked.put(lambda _: self._work.tell(text))
        self._start()

    def close(self, seconds: float, *, succeeded: bool) -> None:
        """Have all that is left written, and wait for that for at most so many seconds. A thread
        that is still waiting for Airflow then is left alone. For ``succeeded``, see
        ``StoreWork.finish``.
        """
        if self._started:
            self._succeeded = succeeded
            self._asked.put(None)
            try:
                self._ended.get(timeout=seconds)
            except queue.Empty:
                self._log.warning("Airflow takes more than %g s to keep the task's state", seconds)

    def _ask_newest(self, name: str, what: Callable[[float], None]) -> None:
        """Ask for ``what`` in place of all of that name that was not taken yet."""
        self._newest[name] = what
        # In this order: ``_take_newest`` does it the other way round, so that nothing is missed.
        if name not in self._queued:
            self._queued.add(name)
            self._asked.put(lambda now: self._take_newest(name, now))
        self._start()

    def _take_newest(self, name: str, now: float) -> None:
        self._queued.discard(name)
        self._newest[name](now)

    def _start(self) -> None:
        if self._started:
            return
        thread = threading.Thread(target=self._run, name="elastic-launch-task-state", daemon=True)
        self._started = True  # first: an alarm may raise when it runs already
        try:
            thread.start()
        except RuntimeError as error:  # the limit of processes, or the container's
            self._started = False
            if not self._refused:
                self._refused = True
                text = "the task's state is not kept, and nobody can steer the job meanwhile: %s"
                self._log.warning(text, error)

    def _run(self) -> None:
        try:
            due = _FOREVER
            while self._take(due):
                due = self._work.turn(time.monotonic)
            self._work.finish(succeeded=self._succeeded)
        except Exception:  # noqa: BLE001 - the edge of the thread: the job goes on without it
            self._log.exception("the task's state is no longer kept, and nobody can steer the job")
        finally:
            self._ended.put(None)

    def _take(self, due: float) -> bool:
        """Wait until ``due``, or until something is asked, and take all that is; False if that is
        the end.
        """
        timeout = None if due == _FOREVER else max(0.0, due - time.monotonic())
        while True:
            try:
                asked = self._asked.get(timeout=timeout)
            except queue.Empty:
                return True
            if asked is None:
                return False
            asked(time.monotonic())
            timeout = 0.0
