"""The worker processes of one round: they are started together and ended together.

``RankGroup`` is all ranks of a node; each is a ``Worker``. It runs on the agent's loop and thread.
The agent decides what an end means (restart, verdict).
"""

from __future__ import annotations

import logging
import signal
import time
from collections.abc import Callable, Sequence

from llutil.agent.event_loop import EventLoop
from llutil.agent.guardian.client import Guardian
from llutil.agent.observer import AgentObserver
from llutil.agent.start_methods.starter import Starter
from llutil.agent.workers.rank import Worker
from llutil.agent.workers.rank_exit import RankExit
from llutil.agent.workers.rank_plan import RankPlan, files_by_default
from llutil.serialization.shared_objects import SharedObjects
from llutil.system.kill_all import kill_all
from llutil.system.process_table import session_members
from llutil.time_budgets import KILLED

__all__ = ["RankGroup"]

_log = logging.getLogger(__name__)

# Seconds in which a worker that reported a failure may exit by itself, before it is sent a signal.
_EXIT_TIME = 1.0
# Seconds between two looks at the session of a command that is being stopped.
_SESSION_PERIOD = 0.05
# Seconds that a round runs before the next one's workers are forked: a short job needs none.
_PREPARE_AFTER = 0.2


class RankGroup:
    """All ranks of this node in one round. With ``prepare``, those of the next round get ready
    while this one runs.
    """

    def __init__(
        self,
        plans: Sequence[RankPlan],
        *,
        starter: Starter,
        order_fd: int,
        shared: SharedObjects | None = None,
        check: Callable[[], None] = lambda: None,
        mark: str,
        guardian: Guardian,
        loop: EventLoop,
        observer: AgentObserver,
        prepare: bool = False,
    ) -> None:
        self._mark = mark
        self._starter = starter
        self._guardian = guardian
        self._loop = loop
        self._all: list[Worker] = []
        self._stopping = False
        try:
            for plan in plans:
                worker = Worker(plan, starter, order_fd, loop, observer, shared, check)
                self._all.append(worker)
                guardian.watch(worker.process.pid, worker.process.start)
            for session in starter.processes.items():
                guardian.watch(*session)
            if files := files_by_default(plans):
                _log.info("%s", files)
            if prepare:
                loop.call_later(time.monotonic() + _PREPARE_AFTER, self._prepare)
        except BaseException:
            self.stop(signal.SIGKILL, 0.0)
            raise

    def _prepare(self) -> None:
        if not self._stopping:
            self._starter.prepare(len(self._all))

    @property
    def pids(self) -> dict[int, int]:
        """Process numbers by local rank."""
        return {worker.plan.local_rank: worker.process.pid for worker in self._all}

    @property
    def ended(self) -> bool:
        """Whether every rank has ended."""
        return all(worker.ended is not None for worker in self._all)

    @property
    def failed(self) -> bool:
        """Whether a rank has failed."""
        return any(w.reported_error or (w.ended is not None and w.ended.failed) for w in self._all)

    @property
    def next_deadline(self) -> float:
        """When the process of a rank that has returned its value must have ended, on
        ``time.monotonic()``; infinity if there is none.
        """
        waiting = (
            w.exit_deadline for w in self._all if w.ended is None and w.exit_deadline is not None
        )
        return min(waiting, default=float("inf"))

    @property
    def running(self) -> list[Worker]:
        """The ranks whose user code runs: they have neither ended nor reported anything."""
        return [
            worker
            for worker in self._all
            if worker.ended is None and worker.exit_deadline is None and not worker.reported_error
        ]

    @property
    def over(self) -> set[int]:
        """The local ranks whose user code has ended, in whatever way."""
        local_ranks = {worker.plan.local_rank for worker in self._all}
        return local_ranks.difference(worker.plan.local_rank for worker in self.running)

    @property
    def returned(self) -> list[Worker]:
        """The ranks that returned a value and whose processes have not ended."""
        return [w for w in self._all if w.ended is None and w.exit_deadline is not None]

    @property
    def overdue(self) -> list[Worker]:
        """Those of them whose processes have not ended in time."""
        now = time.monotonic()
        return [worker for worker in self._all if worker.is_overdue(now)]

    def refresh(self) -> None:
        """Check every process, in case an event was missed. The caller decides how often."""
        for worker in self._all:
            worker.check()

    def results(self) -> list[RankExit]:
        """How each rank ended, in rank order. Call it after ``stop``."""
        return [worker.with_tail() for worker in self._all]

    def stop(
        self, number: int, grace_period: float, hurry: Callable[[], bool] = lambda: False
    ) -> None:
        """Ask every rank to end with signal ``number``, wait at most ``grace_period`` seconds, then
        kill all that is left.

        ``hurry`` is called while waiting; when it returns true, the rest of the grace period is
        skipped.

        Afterwards no process of this node's job exists: no worker and no child of one, in whatever
        session it is. All descriptors are closed, and the last lines of output were delivered. A
        worker that the kernel does not end in time counts as ended by SIGKILL.
        """
        self._stopping = True
        deadline = time.monotonic() + grace_period
        for worker in self._all:
            worker.check()  # what has ended before the signal was not ended by it
        # A worker that reported a failure is about to exit. The signal could end it first, and its
        # exit code would be lost.
        leaving = [
            worker
            for worker in self._all
            if worker.ended is None and worker.reported_error and not worker.stuck
        ]
        for worker in self._all:
            if worker.ended is None and worker not in leaving:
                worker.signal(number)
        self._loop.until(
            lambda: hurry() or all(worker.ended is not None for worker in leaving),
            min(deadline, time.monotonic() + _EXIT_TIME),
        )
        for worker in leaving:
            if worker.ended is None:
                worker.signal(number)
        commands = {w.process.pid for w in self._all if w.plan.signal_session}
        self._loop.until(lambda: self.ended or hurry(), deadline)
        while (
            commands and time.monotonic() < deadline and session_members(commands) and not hurry()
        ):
            # A shell ends at once, but the program that it ran may still be saving. There is no
            # descriptor that becomes ready when that program ends.
            self._loop.turn(min(deadline, time.monotonic() + _SESSION_PERIOD))
        last = time.monotonic() + KILLED
        for worker in self._all:
            if worker.ended is None:
                worker.expect(signal.SIGKILL)
        # The starter's process has adopted what the ranks have left.
        adopters = self._starter.processes
        sessions = {w.process.pid: w.process.start for w in self._all} | adopters
        spare = adopters | self._starter.ready
        left = kill_all(sessions, self._mark, last, spare, self._guardian.since)
        self._guardian.since = left.since
        if left:
            _log.error("the round has ended, but not all of its processes: %s", left)
        self._loop.until(lambda: self.ended, last)
        for worker in self._all:
            worker.give_up()
            worker.close()
        # A starter's process may have died, too, and been replaced.
        self._guardian.forget_all_but(self._starter.processes)
