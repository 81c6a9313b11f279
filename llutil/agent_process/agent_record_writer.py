"""Writes the ``AgentRecord`` of this agent: the file that the next try of its task reads.

It is called from several threads: the main thread, the task socket's, and the one that ends a stuck
agent. If the file cannot be written, the log says so and the job goes on.
"""

from __future__ import annotations

import logging
import os
import threading
from typing import Any

import msgspec

from llutil.system.oom_kills import OomWatch
from llutil.task_link import messages
from llutil.task_link.agent_record import AgentRecord

__all__ = ["AgentRecordWriter"]

_log = logging.getLogger(__name__)


class AgentRecordWriter:
    """The record of one agent. Nothing is written before ``job_begins``, and nothing at all if the
    spec names no file.

    ``mark`` is in the environment of every process of the job. ``task`` is the number of the task's
    process and its start in ticks, see ``task_process``.
    """

    def __init__(self, mark: str, task: tuple[int, str]) -> None:
        self._mark = mark
        self._task = task
        self._lock = threading.Lock()
        """Guards all fields below."""
        self._path = ""
        self._record: AgentRecord | None = None
        self._oom_watch = OomWatch()

    def job_begins(self, spec: messages.Spec) -> None:
        """The job of ``spec`` has not started a process yet, and is about to."""
        with self._lock:
            self._path = spec.agent_record
            self._record = AgentRecord(
                launch=spec.launch,
                pid=os.getpid(),
                mark=self._mark,
                grace_period=spec.config.shutdown_timeout,
                task_pid=self._task[0],
                task_start_ticks=self._task[1],
            )
            self._write()

    def round_began(self) -> None:
        """Count the kernel's kills for lack of memory from now on: earlier ones belong to earlier
        rounds.
        """
        with self._lock:
            self._oom_watch = OomWatch()

    def stop_asked(self, reason: str, *, task_gone: bool) -> None:
        """The job was asked to stop, because its task is gone or for ``reason``."""
        counted = self._oom_watch.kills() if task_gone else None
        if not task_gone:
            self._update(stop_reason=reason)
        elif counted is None:
            self._update(task_gone=True)
        else:
            self._update(task_gone=True, kills=counted.kills, counted_by=counted.where)

    def ended(self, last: messages.JobSucceeded | messages.JobFailed) -> None:
        """The job has ended; ``last`` is the agent's last message."""
        self._update(end=last)

    def _update(self, **fields: Any) -> None:
        with self._lock:
            # After the end was told, the task may have removed the file: do not write it again.
            if self._record is not None and self._record.end is None:
                self._record = msgspec.structs.replace(self._record, **fields)
                self._write()

    def _write(self) -> None:
        if not self._path or self._record is None:
            return
        try:
            self._record.write(self._path)
        except OSError as error:
            _log.warning("the agent's record for the next try could not be written: %s", error)
