"""The worker processes of one round: started together, ended together.

``RankGroup`` is all of a node's; one of them is a ``Worker``. It lives on the agent's loop and
thread. What an end *means* (restart, verdict) is the agent's to decide.
"""

from __future__ import annotations

import logging
import signal
import time
from collections.abc import Callable, Sequence

from llutil.agent.event_loop import EventLoop
from llutil.agent.guardian.client import Guardian
from llutil.agent.observer import AgentObserver
from llutil.agent.start_methods.spawn_and_fork import Starter
from llutil.agent.workers.rank import RankPlan, Worker
from llutil.agent.workers.rank_exit import RankExit
from llutil.system.processes import kill_all, session_members
from llutil.time_budgets import KILLED

__all__ = ["RankGroup"]

_log = logging.getLogger(__name__)

_LEAVE = 1.0  # seconds a worker that said that it failed has to leave by itself
_GROUP_PERIOD = 0.05  # seconds between two looks at a stopping command's session


class RankGroup:
    """All ranks of this node in one round."""

    def __init__(
        self,
        plans: Sequence[RankPlan],
        *,
        starter: Starter,
        order_fd: int,
        mark: str,
        guardian: Guardian,
        loop: EventLoop,
        observer: AgentObserver,
    ) -> None:
        self._mark = mark
        self._starter = starter
        self._guardian = guardian
        self._loop = loop
        self._all: list[Worker] = []
        try:
            for plan in plans:
                worker = Worker(plan, starter, order_fd, loop, observer)
                self._all.append(worker)
                guardian.watch(worker.process.pid)
        except BaseException:
            self.stop(signal.SIGKILL, 0.0)
            raise

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
        return any(w.erred or (w.ended is not None and w.ended.failed) for w in self._all)

    @property
    def next_deadline(self) -> float:
        """When a rank that handed in its value must have left, on ``time.monotonic()``; infinity if
        none has.
        """
        waiting = (
            w.value_deadline for w in self._all if w.ended is None and w.value_deadline is not None
        )
        return min(waiting, default=float("inf"))

    def end_overdue(self) -> None:
        """Kill ranks that returned a value and whose processes have not ended in time: they have
        failed.
        """
        now = time.monotonic()
        for worker in self._all:
            due = worker.value_deadline
            if worker.ended is None and due is not None and now >= due:
                worker.cut_off()

    def refresh(self) -> None:
        """Look at every process, in case an event was missed: the safety net's period is the
        caller's.
        """
        for worker in self._all:
            worker.look()

    def results(self) -> list[RankExit]:
        """How each rank ended, in rank order; only once all have, and after ``stop``."""
        return [worker.with_tail() for worker in self._all if worker.ended is not None]

    def stop(
        self, number: int, grace_period: float, hurry: Callable[[], bool] = lambda: False
    ) -> None:
        """Ask every rank to end by ``number``, wait at most ``grace_period`` seconds, then kill all
        that is left.

        ``hurry`` is asked while waiting; once it says yes, the rest of the grace period is forgone.

        Afterwards no process of this node's job exists: neither a worker, nor a child of one, in
        whatever session it hid. Descriptors are given back, and the last lines of output delivered.
        """
        deadline = time.monotonic() + grace_period
        for worker in self._all:
            worker.look()  # who is dead already did not die of this
        # Who has said that it failed is about to leave: the signal would end it first, and hide its
        # exit code.
        leaving = [worker for worker in self._all if worker.ended is None and worker.erred]
        for worker in self._all:
            if worker.ended is None and worker not in leaving:
                worker.signal(number)
        self._loop.until(
            lambda: hurry() or all(worker.ended is not None for worker in leaving),
            min(deadline, time.monotonic() + _LEAVE),
        )
        for worker in leaving:
            if worker.ended is None:
                worker.signal(number)
        commands = [w.process.pid for w in self._all if w.plan.whole_group]
        self._loop.until(lambda: self.ended or hurry(), deadline)
        while (
            commands and time.monotonic() < deadline and session_members(commands) and not hurry()
        ):
            # A shell is gone at once; the program it ran may still be saving. No descriptor tells
            # its end.
            self._loop.turn(min(deadline, time.monotonic() + _GROUP_PERIOD))
        last = time.monotonic() + KILLED
        for worker in self._all:
            if worker.ended is None:
                worker.signal(signal.SIGKILL)
        sessions = [w.process.pid for w in self._all]
        left = kill_all(sessions, self._mark, last, spare=self._starter.pids)
        if left:
            _log.error("processes %s did not end on SIGKILL; they are stuck in the kernel", left)
        self._loop.until(lambda: self.ended, last)
        for worker in self._all:
            worker.close()
            self._guardian.forget(worker.process.pid)
