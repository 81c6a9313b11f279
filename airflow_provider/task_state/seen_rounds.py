"""What a task has seen of its job's rounds, checkpoints and curves in one try.

It reads no clock: each moment is an argument. It may import the standard library, msgspec, the
messages of the agent, and the form of the key.
"""

from __future__ import annotations

import datetime as dt
from collections import deque
from dataclasses import dataclass
from typing import Any

from msgspec.structs import replace

from airflow_provider.task_state.curves import SeenCurves
from airflow_provider.task_state.elastic_form import Committed, Metrics, RoundNote
from airflow_provider.task_state.notes import time_text
from llutil.agent_socket.messages import JobStatus, RankStatus
from llutil.agent_socket.round_end import RoundEnd
from llutil.progress.pace import Steps
from llutil.task_link.job_events import (
    JobEvent,
    NodeStatus,
    Progress,
    RoundBegan,
    RoundEnded,
    Saved,
    TimeSpent,
)

__all__ = ["MOST_COMMITTED", "MOST_ROUNDS", "Seen", "SeenRounds"]

MOST_ROUNDS = 50
MOST_COMMITTED = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """All of it at one moment. ``time`` is when the agent was last heard.

    ``status`` is what the agent said last, and ``running`` what it said last while ranks ran, if
    any have. ``ranks`` are those of the last round, with the newest steps. ``failed`` is how the
    last round ended that failed, and ``failed_at`` when.
    """

    time: str
    status: JobStatus
    running: JobStatus
    ranks: tuple[RankStatus, ...] = ()
    rounds: tuple[RoundNote, ...] = ()
    more_rounds: bool = False
    metrics: Metrics
    more_metrics: bool = False
    committed: tuple[Committed, ...] = ()
    resumed_from: int | None = None
    failed: RoundEnd | None = None
    failed_at: str = ""
    spent: TimeSpent | None = None


class SeenRounds:
    """One try, as the messages of its agents tell it. ``seen`` is None until one has told its
    status.
    """

    def __init__(self, try_number: int) -> None:
        self._try_number = try_number
        self._status: JobStatus | None = None
        self._running: JobStatus | None = None
        self._steps: Steps = {}
        self._rounds: deque[RoundNote] = deque(maxlen=MOST_ROUNDS)
        self._count = 0
        self._curves = SeenCurves()
        self._committed: deque[Committed] = deque(maxlen=MOST_COMMITTED)
        self._resumed_from: int | None = None
        self._failed: RoundEnd | None = None
        self._failed_at = ""
        self._spent: TimeSpent | None = None
        self._time = ""

    def begin(self) -> None:
        """Another agent begins, in the same try."""
        self._spent = None

    def hear(self, event: JobEvent, now: dt.datetime) -> None:
        """Something has happened."""
        self._time = time = time_text(now)
        match event:
            case RoundBegan(ranks=()):
                self._change(ended=time)
            case RoundBegan(world_size=world_size):
                self._steps, self._resumed_from = {}, None
                self._count += 1
                self._rounds.append(
                    RoundNote(try_number=self._try_number, began=time, world_size=world_size)
                )
            case RoundEnded(end=end):
                self._round_ended(end, time)
            case NodeStatus(status=status):
                self._take(status)
            case Progress(ranks=steps, metrics=metrics) if steps:
                self._steps = dict(steps)
                self._note_step(min(step for step, _ in steps.values()))
                if metrics and 0 in steps:
                    self._curves.add(steps[0][0], now.timestamp(), metrics)
            case Saved(step=step, path=""):
                for old in [one for one in self._committed if one.step >= step]:
                    self._committed.remove(old)  # it was saved again
                self._committed.append(Committed(step, time))
            case TimeSpent():
                self._spent = event
            case _:
                pass

    def end(self, now: dt.datetime, why: str, *, succeeded: bool) -> None:
        """The try is over; a round that still runs ends by that."""
        self._time = time_text(now)
        if self._rounds and self._rounds[-1].ended is None:
            self._change(ended=self._time)
        if self._rounds and not self._rounds[-1].end:
            self._change(end="success" if succeeded else "lost", why="" if succeeded else why)

    def seen(self) -> Seen | None:
        """What is known now."""
        if self._status is None:
            return None
        running = self._running or self._status
        return Seen(
            time=self._time,
            status=self._status,
            running=running,
            ranks=tuple(self._with_newest_step(rank) for rank in running.ranks),
            rounds=tuple(self._rounds),
            more_rounds=self._count > MOST_ROUNDS,
            metrics=self._curves.metrics,
            more_metrics=self._curves.left_out,
            committed=tuple(self._committed),
            resumed_from=self._resumed_from,
            failed=self._failed,
            failed_at=self._failed_at,
            spent=self._spent,
        )

    def _take(self, status: JobStatus) -> None:
        self._status = status
        if not status.ranks:
            return
        self._running = status
        if status.resumed_from is not None:
            self._resumed_from = status.resumed_from
        self._change(round=status.round, nodes=status.members, node=status.node)
        if status.step is not None:
            self._note_step(status.step)

    def _round_ended(self, end: RoundEnd, time: str) -> None:
        self._change(end=str(end.kind), why=end.why)
        if self._rounds and self._rounds[-1].ended is None:
            self._change(ended=time)
        if end.failure is not None:
            self._failed, self._failed_at = end, time

    def _note_step(self, step: int) -> None:
        if self._rounds:
            first = self._rounds[-1].first_step
            self._change(first_step=step if first is None else first, last_step=step)

    def _with_newest_step(self, rank: RankStatus) -> RankStatus:
        step, total = self._steps.get(rank.rank, (rank.step, rank.total))
        if step is None or (rank.step is not None and rank.step >= step):
            return rank
        return replace(rank, step=step, total=total)

    def _change(self, **fields: Any) -> None:
        if self._rounds:
            self._rounds[-1] = replace(self._rounds[-1], **fields)
