"""Sends what happens on a node, and the agent's log, to the Airflow task as messages."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

from llutil.agent_process.agent_record_writer import AgentRecordWriter
from llutil.agent_process.task_socket import TaskSocket
from llutil.agent_socket.messages import JobStatus
from llutil.agent_socket.round_end import RoundEnd
from llutil.task_link import messages

__all__ = ["TaskLogHandler", "TaskObserver"]

# Characters of the lines that one message has, if it has several. Such a message becomes one record
# of the task's log, and a reader should not have to scroll through a record for long.
_TEXT = 8192


class TaskObserver:
    """The ``AgentObserver`` that tells an Airflow task. ``own_fds`` are further descriptors that a
    worker must not keep. ``sends_prefixes`` says that the job has a template for the prefix of
    ranks' lines, and ``leaves_out`` is as in ``AgentObserver``.
    """

    captures = True
    wants_progress = wants_status = True

    def __init__(
        self,
        task_socket: TaskSocket,
        record_writer: AgentRecordWriter,
        own_fds: Collection[int] = (),
    ) -> None:
        self._task_socket = task_socket
        self._record_writer = record_writer
        self._own_fds = own_fds
        self.sends_prefixes = False
        self.leaves_out = False
        self._unsent: dict[type[messages.Message], messages.Message] = {}
        """The newest progress and status that the task read too slowly for, if it is newer than the
        one that was sent last.
        """

    def fds(self) -> set[int]:
        """Those of the task socket, and ``own_fds``. While a worker holds the socket, the task does
        not notice the end of its agent.
        """
        return self._task_socket.fds().union(self._own_fds)

    def output_lines(self, rank: int, prefix: str, stream: str, lines: Sequence[str]) -> None:
        """Send the lines with their rank, which makes torch's own prefix needless."""
        own = prefix if self.sends_prefixes else ""
        for text in _joined(lines):
            self._task_socket.send(messages.OutputLines(rank, stream, text, own))

    def round(self, restart: int, world_size: int, ranks: tuple[int, ...]) -> None:
        """Tell the task that the ranks started, or, if ``ranks`` is empty, that they ended."""
        if ranks:
            self._record_writer.round_began()
        self._send_unsent()
        self._task_socket.send(messages.RoundBegan(restart, world_size, ranks))

    def round_ended(self, end: RoundEnd) -> None:
        """Tell the task how the last round ended here."""
        self._task_socket.send(messages.RoundEnded(end))

    def status(self, status: JobStatus) -> None:
        """Tell the task what this node does; not while it reads too slowly, since a newer status
        follows.
        """
        self._send_replaceable(messages.NodeStatus(status))

    def time_spent(
        self, seconds: float, training_share: float | None, restarts: int, text: str
    ) -> None:
        """Tell the task where the time of its job went."""
        self._send_unsent()
        self._task_socket.send(messages.TimeSpent(seconds, training_share, restarts, text))

    def ledger_served(self, endpoint: str) -> None:
        """Tell the task where other nodes find the ledger that this node serves."""
        self._task_socket.send(messages.LedgerServed(endpoint))

    def progress(self, ranks: Mapping[int, tuple[int, int]], metrics: Mapping[str, float]) -> None:
        """Send the step of each rank, and the metrics; not while the task reads too slowly, since
        newer ones follow.
        """
        self._send_replaceable(messages.Progress(ranks, metrics))

    def measured(self, what: str, seconds: float) -> None:
        """Tell the task how long something took."""
        self._task_socket.send(messages.Measured(what, seconds))

    def saved(self, step: int, seconds: float | None = None, path: str = "") -> None:
        """Tell the task of a checkpoint that is committed."""
        self._task_socket.send(messages.Saved(step, seconds, path))

    def steered(self, text: str, now: str = "") -> None:
        """Tell the task what was asked of all ranks, or what follows from it."""
        self._task_socket.send(messages.Steered(text, now))

    def stopped(self, step: int | None, why: str) -> None:
        """Tell the task that its job was stopped because somebody asked for that."""
        self._task_socket.send(messages.Stopped(step, why))

    def congested(self) -> bool:
        """Whether the task reads too slowly."""
        return self._task_socket.congested()

    def when_not_congested(self, resume: Callable[[], None]) -> None:
        """Call ``resume`` once the task has read enough."""
        self._task_socket.when_not_congested(resume)

    def _send_replaceable(self, message: messages.Message) -> None:
        if self._task_socket.send(message, replaceable=True):
            self._unsent.pop(type(message), None)
        else:
            self._unsent[type(message)] = message

    def _send_unsent(self) -> None:
        """Send the last progress and status, however slow the task is: where ranks begin or end,
        and at the end, nothing newer may follow.
        """
        for message in self._unsent.values():
            self._task_socket.send(message)
        self._unsent.clear()


def _joined(lines: Sequence[str]) -> Iterator[str]:
    """``lines`` with newlines between, in texts of about ``_TEXT``: one line at least in each."""
    first, size = 0, 0
    for index, line in enumerate(lines):
        if size + len(line) > _TEXT and index > first:
            yield "\n".join(lines[first:index])
            first, size = index, 0
        size += len(line) + 1
    if first < len(lines):
        yield "\n".join(lines[first:])


class TaskLogHandler(logging.Handler):
    """Sends log records of this package to the task. A forked worker must not use it: the socket's
    thread does not exist there.
    """

    def __init__(self, task_socket: TaskSocket) -> None:
        super().__init__()
        self._task_socket = task_socket

    def emit(self, record: logging.LogRecord) -> None:
        """Send one record."""
        try:
            self._task_socket.send(
                messages.LogRecord(record.levelname, record.name, self.format(record))
            )
        except Exception:  # noqa: BLE001 - what logging asks of a handler
            self.handleError(record)
