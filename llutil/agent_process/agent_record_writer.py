"""Keeps what this agent leaves for the next try of its task up to date, on disk.

Called from several threads: the main one, the link's, and the one that ends a stuck agent. A file
that cannot be written is told in the log and stops no job.
"""

from __future__ import annotations

import logging
import os
import threading
from typing import Any

import msgspec

from llutil.system.oom_kills import OomWatch
from llutil.system.processes import start_ticks
from llutil.task_link import messages
from llutil.task_link.agent_record import AgentRecord

__all__ = ["AgentRecordWriter"]

_log = logging.getLogger(__name__)


class AgentRecordWriter:
    """The file of one agent. Before ``begin`` nothing is written, and never if the spec names no
    file.

    ``mark`` is the job's.
    """

    def __init__(self, mark: str) -> None:
        self._mark = mark
        self._lock = threading.Lock()
        """Guards all below."""
        self._path = ""
        self._record: AgentRecord | None = None
        self._memory = OomWatch()

    def begin(self, spec: messages.Spec) -> None:
        """The job that ``spec`` asks for is about to start its first process."""
        with self._lock:
            self._path = spec.agent_record
            task = os.getppid()
            self._record = AgentRecord(
                launch=spec.launch,
                pid=os.getpid(),
                mark=self._mark,
                grace_period=spec.config.shutdown_timeout,
                task_pid=task,
                task_start_ticks=start_ticks(task),
            )
            self._write()

    def round_began(self) -> None:
        """Only what the kernel kills from here on may be about the task that is there now."""
        with self._lock:
            self._memory = OomWatch()

    def told(self, reason: str, *, task_gone: bool) -> None:
        """The job is asked to end: because its task is gone, or for ``reason``."""
        found = self._memory.kills() if task_gone else None
        if not task_gone:
            self._know(stop_reason=reason)
        elif found is None:
            self._know(task_gone=True)
        else:
            self._know(task_gone=True, kills=found.kills, counted_by=found.where)

    def ended(self, last: messages.JobSucceeded | messages.JobFailed) -> None:
        """This is what the agent says last."""
        self._know(end=last)

    def _know(self, **more: Any) -> None:
        with self._lock:
            # Once the end is told, the file is the task's to remove.
            if self._record is not None and self._record.end is None:
                self._record = msgspec.structs.replace(self._record, **more)
                self._write()

    def _write(self) -> None:
        if not self._path or self._record is None:
            return
        try:
            self._record.write(self._path)
        except OSError as error:
            _log.warning("what the next try should know could not be written: %s", error)
