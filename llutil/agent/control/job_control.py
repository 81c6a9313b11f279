"""What an agent answers to people, and what it does when they order something.

An order raises a flag of the event page, as whoever has the page can. So it acts as that flag does:
on all nodes of the job, at one step, and again after a restart.
"""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from llutil.agent.control.job_observer import JobObserver
from llutil.agent.steering.steering import Steering
from llutil.agent.stop_signals import StopSignals
from llutil.agent_socket.messages import (
    Answer,
    JobStatus,
    Order,
    RankStatus,
    Request,
    State,
)
from llutil.events.events import Events
from llutil.events.rank_slot import Doing
from llutil.rendezvous.protocol.gate_records import WishKind
from llutil.system.printable import printable

if TYPE_CHECKING:
    from torch.distributed.elastic.agent.server.api import Worker, WorkerGroup

__all__ = ["JobControl", "JobFacts"]

_log = logging.getLogger(__name__)

_WISHES = {
    Order.PAUSE: WishKind.PAUSE,
    Order.RESUME: WishKind.RESUME,
    Order.CHECKPOINT: WishKind.CHECKPOINT,
    Order.STOP: WishKind.STOP,
}
_LONGEST_WHY = 300
_LONGEST_NAME = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class JobFacts:
    """What does not change while an agent runs; see ``JobStatus``."""

    run_id: str
    entrypoint: str
    label: str
    max_restarts: int
    checkpoint_folder: str
    log_folder: str


class JobControl:
    """Answers requests about one node. ``group`` gives torch's worker group, which has the ranks of
    the last round, and ``members`` the round's number and the names of its nodes.
    """

    def __init__(
        self,
        facts: JobFacts,
        group: Callable[[], WorkerGroup],
        steering: Steering,
        observer: JobObserver,
        signals: StopSignals,
        events: Events,
        members: Callable[[], tuple[int, tuple[str, ...]]],
    ) -> None:
        self._members = members
        self._facts = facts
        self._group = group
        self._steering = steering
        self._observer = observer
        self._signals = signals
        self._events = events
        self._began = time.monotonic()

    def answer(self, request: Request, caller: str) -> Answer:
        """Do what ``request`` says, and answer it. ``caller`` says who asks, for the log."""
        if request.do is not Order.STATUS:
            why = printable(request.why)[:_LONGEST_WHY]
            told = f"llutil {request.do}" + (f": {why}" if why else "")
            _log.info("asked by %s: %s", caller, told)
            self._steering.ask(_WISHES[request.do], told)
        return Answer(status=self.status())

    def status(self) -> JobStatus:
        """The node's status."""
        facts, heard = self._facts, self._observer
        group = self._group()
        running = bool(heard.ranks)
        state = self._state()
        number, names = self._members()
        if running and not names and group.group_world_size == 1:
            names = (facts.label or socket.gethostname(),)
        stop = self._steering.asked_stop
        pace = heard.pace if state in {State.RUNS, State.SAVES} else None
        # From the page itself: the observer hears of steps twice a second only.
        ranks = tuple(self._rank(worker) for worker in group.workers) if running else ()
        return JobStatus(
            run_id=facts.run_id,
            pid=os.getpid(),
            host=socket.gethostname(),
            entrypoint=facts.entrypoint,
            state=state,
            nodes=group.group_world_size if running else 0,
            world_size=heard.world_size,
            restarts=heard.restarts,
            max_restarts=facts.max_restarts,
            seconds=time.monotonic() - self._began,
            label=facts.label,
            node=group.group_rank if running else None,
            ranks=ranks,
            step=min((rank.step for rank in ranks if rank.step is not None), default=None),
            total=max((rank.total for rank in ranks), default=0),
            rate=pace.rate if pace else None,
            seconds_left=pace.seconds_left if pace else None,
            metrics=dict(heard.metrics) if running else {},
            detail=heard.detail,
            counts_steps=self._steering.counts_steps,
            stops_after=stop.step if running and stop else None,
            saved=heard.saved_step,
            has_saved=self._events.finished_save_checkpoint.is_set(),
            refused={str(kind): why for kind, why in self._steering.refused.items()},
            checkpoint_folder=facts.checkpoint_folder,
            log_folder=facts.log_folder,
            event_page=self._events.path,
            round=number or None,
            members=tuple(name[:_LONGEST_NAME] for name in names),
            resumed_from=self._events.resumed_from if running else None,
        )

    def _state(self) -> State:
        events = self._events
        if self._signals.caught is not None:
            return State.ENDS
        if not self._observer.ranks:
            return State.WAITS
        if events.debugged:
            return State.DEBUGGED
        if events.stop_all_tasks.is_set():
            return State.STOPS
        if events.paused.is_set():
            return State.PAUSED
        if events.pause.is_set():
            return State.PAUSES
        workers = self._group().workers
        doing = [events.slot(worker.local_rank).doing for worker in workers]
        return State.SAVES if Doing.CHECKPOINT in doing else State.RUNS

    def _rank(self, worker: Worker) -> RankStatus:
        slot = self._events.slot(worker.local_rank)
        reported = bool(slot.heartbeat)
        silent = (time.monotonic_ns() - slot.heartbeat) / 1e9
        return RankStatus(
            rank=worker.global_rank,
            local_rank=worker.local_rank,
            pid=worker.id or 0,
            step=slot.step if reported else None,
            total=slot.total,
            doing=Doing(slot.doing).name.lower(),
            silent=max(0.0, silent) if reported else None,
        )
