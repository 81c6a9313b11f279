"""``ElasticKey``: keeps the key ``elastic`` of a task's state, by what the job's agents say.

The relaying thread only notes what happens. The value is made in the thread of the store, when it
is written: so what nobody reads is never made. The task with rank 0 writes every 5 seconds while
something happens, so that a person sees steps move, and every 10 seconds as a sign of life. The
others write like their other keys, so all of them together write once in 5 seconds at most, until
the job has 120 nodes. Each try reads the key once.
"""

from __future__ import annotations

import datetime as dt
import logging
import os
import random
import socket
from collections.abc import Callable

from airflow_provider.task_state.elastic_form import (
    ELASTIC,
    NOTHING_EARLIER,
    Earlier,
    read_earlier,
)
from airflow_provider.task_state.elastic_note import Ended, LaunchFacts, elastic_note
from airflow_provider.task_state.notes import write_period
from airflow_provider.task_state.seen_rounds import SeenRounds
from airflow_provider.task_state.store_thread import StoreThread
from airflow_provider.task_state.store_work import Made
from llutil.agent_socket.messages import JobStatus, State
from llutil.task_link.job_events import JobEvent, NodeStatus, RoundBegan, RoundEnded

__all__ = ["ElasticKey"]

_OF_RANK_0 = 5.0
"""Seconds between two writes by the task with rank 0."""

_SETTLED = 2.0
"""Seconds until the first write: so a short job writes once."""

_FIRST_WITHIN = 30.0
"""Seconds over which the first writes of a job's other nodes are spread."""


class ElasticKey:
    """The key of one try. ``hide`` takes secrets out of a text; ``limit`` is in bytes."""

    def __init__(
        self,
        facts: LaunchFacts,
        thread: StoreThread,
        log: logging.Logger,
        hide: Callable[[str], str],
        limit: int,
    ) -> None:
        self._facts = facts
        self._thread = thread
        self._log = log
        self._hide = hide
        self._limit = limit
        self._rounds = SeenRounds(facts.try_number)
        self._every = write_period(facts.max_nodes, 1)  # as long as it waits for others
        self._begun = False

    def begin(self) -> None:
        """Another agent begins, in the same try."""
        self._rounds.begin()

    def hear(self, event: JobEvent, now: dt.datetime) -> None:
        """Something has happened."""
        self._rounds.hear(event, now)
        match event:
            case RoundBegan(world_size=world_size, ranks=ranks) if ranks:
                others = write_period(world_size, len(ranks))
                self._every = _OF_RANK_0 if 0 in ranks else others
            case NodeStatus() | RoundEnded():
                self._write(None)
            case _:
                pass

    def end(self, ended: Ended, now: dt.datetime) -> None:
        """The try has ended, maybe without an agent that has told anything."""
        if self._rounds.seen() is None:
            self._rounds.hear(NodeStatus(self._without_agent()), now)
        self._rounds.end(now, ended.outcome, succeeded=ended.succeeded)
        self._write(ended)

    def _without_agent(self) -> JobStatus:
        """What is known of this node if no agent has told its status, which would have an
        entrypoint.
        """
        return JobStatus(
            run_id=self._facts.run_id,
            pid=os.getpid(),
            host=socket.gethostname(),
            entrypoint="",
            state=State.WAITS,
            nodes=0,
            world_size=0,
            restarts=0,
            max_restarts=0,
            seconds=0.0,
        )

    def _write(self, ended: Ended | None) -> None:
        seen = self._rounds.seen()
        if seen is None:
            return
        facts, every, hide, limit = self._facts, self._every, self._hide, self._limit

        def make(earlier: Earlier) -> object:
            return elastic_note(facts, seen, earlier, ended, every=every, hide=hide, limit=limit)

        delay = 0.0
        if not self._begun:
            spread = 0.0 if every == _OF_RANK_0 else min(every, _FIRST_WITHIN)
            # So that nodes write at different times.
            delay = _SETTLED + spread * random.random()  # noqa: S311
            self._begun = True
        self._thread.write(ELASTIC, Made(self._read, make), period=every, delay=delay)

    def _read(self, value: object) -> Earlier:
        """What an earlier try has left in the key."""
        try:
            return read_earlier(value)
        except ValueError as error:
            self._log.warning(
                "the key %r of the task's state begins afresh: what it held cannot be read: %s",
                ELASTIC,
                str(error)[:300],
            )
            return NOTHING_EARLIER
