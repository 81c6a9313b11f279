"""What the agent tells its surroundings, as messages to the Airflow task."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping

from llutil.agent_process.agent_record_writer import AgentRecordWriter
from llutil.agent_process.task_socket import TaskSocket
from llutil.task_link import messages

__all__ = ["TaskLogHandler", "TaskObserver"]


class TaskObserver:
    """The ``Host`` at the other end of whose link an Airflow task listens. ``own``: more
    descriptors not for workers.
    """

    captures = True
    wants_progress = True

    def __init__(
        self, link: TaskSocket, leaving: AgentRecordWriter, own: Collection[int] = ()
    ) -> None:
        self._link = link
        self._leaving = leaving
        self._own = own

    def fds(self) -> set[int]:
        """The link's, since while a worker held the socket, the task would not see that its agent
        ended; and ``own``.
        """
        return self._link.fds().union(self._own)

    def line(self, rank: int, prefix: str, stream: str, text: str) -> None:
        """Send the line with its rank; torch's prefix is not needed beside it."""
        del prefix
        self._link.send(messages.OutputLine(rank, stream, text))

    def round(self, restart: int, world_size: int, ranks: tuple[int, ...]) -> None:
        """Say that workers started, or ended: then there are no ``ranks``."""
        if ranks:
            self._leaving.round_began()
        self._link.send(messages.RoundBegan(restart, world_size, ranks))

    def hosting(self, endpoint: str) -> None:
        """Say where the others find the store that this node hosts."""
        self._link.send(messages.StoreHosted(endpoint))

    def progress(self, ranks: Mapping[int, tuple[int, int]]) -> None:
        """Send the ranks' steps."""
        self._link.send(messages.Progress(ranks))

    def congested(self) -> bool:
        """Whether the task is behind."""
        return self._link.congested()

    def when_clear(self, resume: Callable[[], None]) -> None:
        """Call ``resume`` when it no longer is."""
        self._link.when_clear(resume)


class TaskLogHandler(logging.Handler):
    """Sends the log records of this package to the task. Not for forked workers: the link's thread
    is not there.
    """

    def __init__(self, link: TaskSocket) -> None:
        super().__init__()
        self._link = link

    def emit(self, record: logging.LogRecord) -> None:
        """Send one record."""
        try:
            self._link.send(messages.LogRecord(record.levelname, record.name, self.format(record)))
        except Exception:  # noqa: BLE001 - what logging asks of a handler
            self.handleError(record)
