"""What a launch does once its job has ended well: it says how, and writes that beside the job's
checkpoints, so that a rerun begins afresh.

What ranks returned is there by then, and must not be lost by a store that does not answer. So the
store is asked on a thread of its own, and waited for so long only. This module may import
``llutil.checkpoints``, ``llutil.chaos``, ``llutil.time_budgets`` and, for types, the agent.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from llutil.chaos.job_chaos import JobChaos
from llutil.checkpoints.job_environment import (
    checkpoint_environment,
    newest_checkpoint,
    note_success,
)
from llutil.checkpoints.place import FOLDER, LIFE
from llutil.time_budgets import SUCCESS_NOTED

if TYPE_CHECKING:
    from llutil.agent.base_agent import Agent
    from llutil.checkpoints.marker import Checkpoint
    from llutil.launcher.request import LaunchRequest

__all__ = ["tell_end"]

_log = logging.getLogger(__name__)

_PATIENCE = 60.0
"""Seconds for a store to take note of a success. Before that, what was saved and never committed is
removed, which may be many files.
"""

_PERIOD = 0.1
"""Seconds between two looks for a stop, while the store is waited for."""


class _GivenUpError(Exception):
    """Nobody waits for the store any more."""


def tell_end(agent: Agent, request: LaunchRequest, run_id: str) -> None:
    """Say that a job was stopped; or note that it has succeeded. Tell the observer of its newest
    checkpoint.

    It takes a minute at most, and after a stop was asked a few seconds.
    """
    stopped = agent.steering.stopped
    if stopped is not None:
        _log.info("run %r was stopped after step %d: %s", run_id, stopped.step, stopped.why)
        if request.observer is not None:
            request.observer.stopped(stopped.step, stopped.why)
    folder = checkpoint_environment(request.config, run_id).get(FOLDER, "")
    chaos = JobChaos(request.config, run_id, folder)
    if not folder:
        if stopped is None:
            chaos.forget()
        return
    own = agent.success_folder
    found: list[Checkpoint] = []

    def ask_store(goes_on: Callable[[], None]) -> None:
        if stopped is None:
            if own:
                note_success(own, os.environ.get(LIFE, ""), goes_on)
            goes_on()
            chaos.forget()
        goes_on()
        newest = newest_checkpoint(folder) if request.observer is not None else None
        found.extend([] if newest is None else [newest])

    if not _within(ask_store, lambda: agent.signals.caught is not None):
        _log.warning(
            "the store of the checkpoints in %r does not answer, and is not waited for: it may be "
            "unwritten there that the job has ended, so its next life may resume from its end",
            folder,
        )
    elif found and request.observer is not None:
        request.observer.saved(found[0].step, path=found[0].path)


def _within(work: Callable[[Callable[[], None]], None], stop_asked: Callable[[], bool]) -> bool:
    """Do ``work`` on a thread; whether it came to its end in time. Else it goes on alone as far as
    the function that it is given, which raises then: a later launch may use the same store.
    """
    given_up = threading.Event()
    raised: list[Exception] = []

    def goes_on() -> None:
        if given_up.is_set():
            raise _GivenUpError

    def run() -> None:
        try:
            work(goes_on)
        except _GivenUpError:
            pass
        except Exception as error:  # noqa: BLE001 - the edge of the thread; raised below
            raised.append(error)

    thread = threading.Thread(target=run, name="llutil-job-end", daemon=True)
    thread.start()
    until = time.monotonic() + _PATIENCE
    asked = False
    while thread.is_alive() and time.monotonic() < until:
        thread.join(_PERIOD)
        if not asked and stop_asked():
            asked, until = True, min(until, time.monotonic() + SUCCESS_NOTED)
    if thread.is_alive():
        given_up.set()
        return False
    if raised:
        raise raised[0]
    return True
