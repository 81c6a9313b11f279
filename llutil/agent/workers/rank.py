"""One rank of this node: its process, its outcome pipe and its output, from its start until both
have ended.

``RankPlan`` says how it is started. Lives on the agent's loop and thread. What its end means for
the others is for ``workers`` and the agent to know.
"""

from __future__ import annotations

import logging
import os
import signal
import time
from collections import deque
from collections.abc import Iterable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from functools import partial

from llutil.agent.event_loop import EventLoop
from llutil.agent.observer import AgentObserver
from llutil.agent.output.log_files import Route, last_lines, open_log
from llutil.agent.output.pipe_pump import PipePump
from llutil.agent.start_methods.spawn_and_fork import Start, Starter, WorkerProcess
from llutil.agent.worker_side.outcome_pipe import (
    RANK_DID_NOT_END,
    Collector,
    ErrorNote,
    Returned,
)
from llutil.agent.workers.rank_exit import RankExit
from llutil.system.exit_status import exit_text
from llutil.system.processes import signal_process

__all__ = ["RankPlan", "Worker"]

_log = logging.getLogger(__name__)

_CHUNK = 1 << 18  # bytes read from a pipe at once
_TAIL = 40  # lines of standard error kept for the report


@dataclass(frozen=True, slots=True, kw_only=True)
class RankPlan:
    """How one rank is started. ``returns`` says whether it is a function, which must hand in a
    value. ``exit_timeout`` is how many seconds its process may take to end after that.
    """

    rank: int
    local_rank: int
    prefix: str
    env: Mapping[str, str]
    stdout: Route
    stderr: Route
    returns: bool
    whole_group: bool
    exit_timeout: float


class Worker:
    """One rank. ``ended`` is None while it runs."""

    def __init__(
        self,
        plan: RankPlan,
        starter: Starter,
        order_fd: int,
        loop: EventLoop,
        observer: AgentObserver,
    ) -> None:
        self.plan = plan
        self.ended: RankExit | None = None
        self.value_deadline: float | None = None
        self.erred = (
            False  # it said that it failed; its process may still be leaving, or hang doing so
        )
        self._cut_off: ErrorNote | None = None
        self._sent: set[int] = set()
        """The signals that it was asked or made to end by."""
        self._loop = loop
        self._observer = observer
        self._collector = Collector()
        self._tail: deque[str] = deque(maxlen=_TAIL)
        self._open = ExitStack()
        outcome_read, outcome_write = os.pipe2(os.O_CLOEXEC)
        with ExitStack() as started:
            started.callback(os.close, outcome_write)
            self._outcome_fd = outcome_read
            self._open.callback(os.close, outcome_read)
            stdout = self._place(plan.stdout, "stdout", started)
            stderr = self._place(plan.stderr, "stderr", started)
            start = Start(
                order_fd=order_fd,
                outcome_fd=outcome_write,
                stdout=stdout,
                stderr=stderr,
                env=plan.env,
            )
            try:
                self.process: WorkerProcess = starter.start(start)
            except BaseException:
                self.close()
                raise
        os.set_blocking(outcome_read, False)
        loop.watch(outcome_read, self._on_outcome)
        loop.watch(self.process.exit_fd, self._on_exit)
        self._open.callback(self.process.close)
        self._open.callback(loop.unwatch, self.process.exit_fd)
        self._open.callback(loop.unwatch, outcome_read)

    def _place(self, route: Route, stream: str, started: ExitStack) -> int | None:
        """The descriptor for one of the worker's streams; None if it shares the agent's."""
        if route.file is not None and not route.console:
            fd = open_log(route.file)
            started.callback(os.close, fd)
            return fd
        own = route.file is None and route.console and not self._observer.captures
        if stream == "stdout" and own:
            return None
        if stream == "stdout" and route == Route(None, console=False):
            fd = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
            started.callback(os.close, fd)
            return fd
        # Standard error goes through a pipe even on its way to the agent's own, for its last lines.
        read, write = os.pipe2(os.O_CLOEXEC)
        started.callback(os.close, write)
        copy = None
        if route.file is not None:
            copy = open_log(route.file)
            self._open.callback(os.close, copy)
        PipePump(
            read,
            partial(self._take_lines, stream, raw=own),
            f"{stream} of rank {self.plan.rank}",
            copy,
            self._loop,
            self._observer,
            self._open,
            raw=own,
        )
        return write

    def _take_lines(self, stream: str, lines: Iterable[str], *, raw: bool) -> None:
        """Lines that the rank printed; ``raw``: they have been shown already, as they came."""
        route = self.plan.stderr if stream == "stderr" else self.plan.stdout
        for text in lines:
            if stream == "stderr":
                self._tail.append(text)
            if route.console and not raw:
                self._observer.output_line(self.plan.rank, self.plan.prefix, stream, text)

    def signal(self, number: int) -> None:
        """Have the worker end, and its children too where it would not pass the signal on (a shell,
        say).
        """
        self._sent.add(number)
        if self.ended is not None and not self.plan.whole_group:
            return
        if not self.plan.whole_group:
            signal_process(self.process.pid, number)
            return
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, number)

    def _on_outcome(self) -> None:
        if self._read_outcome() is False:
            self._loop.unwatch(self._outcome_fd)
        if self.value_deadline is None and not self.erred:
            match self._collector.note():
                case Returned():
                    self.value_deadline = time.monotonic() + self.plan.exit_timeout
                case ErrorNote():
                    self.erred = True
                case None:
                    pass

    def _read_outcome(self) -> bool | None:
        """Whether there was something; False at the end of the pipe, None if there is nothing
        yet.
        """
        try:
            data = os.read(self._outcome_fd, _CHUNK)
        except BlockingIOError:
            return None
        self._collector.feed(data)
        return bool(data)

    def _on_exit(self) -> None:
        status = self.process.poll()
        if status is None:
            return
        self._loop.unwatch(self.process.exit_fd)
        # Children that hold the pipe keep it open: what is in it now is all that the worker wrote.
        while self._read_outcome():
            pass
        self._loop.unwatch(self._outcome_fd)
        note = self._cut_off or self._collector.note()
        if self.plan.returns:
            failed = not isinstance(note, Returned)
            if not failed and status != 0:
                _log.warning(
                    "rank %d returned its value and then ended with %s; the value counts",
                    self.plan.rank,
                    exit_text(status),
                )
        else:
            # A script's clean-up may end the process with status 0 after an exception.
            failed = status != 0 or isinstance(note, ErrorNote)
        self.ended = RankExit(
            rank=self.plan.rank,
            local_rank=self.plan.local_rank,
            pid=self.process.pid,
            status=status,
            note=note,
            tail=(),
            failed=failed,
            at=note.at if isinstance(note, ErrorNote) else time.monotonic(),
            # What dies of a signal that nobody here sent may have been dying already: to end takes
            # a process some time where it has a lot of memory, or a GPU's, to give back.
            asked=bool(self._sent) and (status >= 0 or -status in self._sent),
        )

    def cut_off(self) -> None:
        """Kill it: it returned a value long ago, and its process has not ended."""
        self.value_deadline = None
        text = (
            f"the rank returned its value, and {self.plan.exit_timeout:g} s later (exit_timeout) "
            "its process had not ended: a thread, an executor, a child process or a function "
            "registered with atexit still ran. It was killed, and what it was writing may be "
            "incomplete"
        )
        self._cut_off = ErrorNote(kind=RANK_DID_NOT_END, text=text, at=time.monotonic())
        self.signal(signal.SIGKILL)

    def refresh(self) -> None:
        """Look at the process itself, in case an event was missed."""
        if self.ended is None:
            self._on_exit()

    def look(self) -> None:
        """Look at the process and at what it has said so far: its event may be on its way."""
        self.refresh()
        if self.ended is None and not self.erred:
            self._on_outcome()

    def with_tail(self) -> RankExit:
        """How the rank ended, with the last lines of its standard error, once its pipes were
        read.
        """
        assert self.ended is not None
        stderr = self.plan.stderr
        if stderr.file is not None and not stderr.console:
            return replace(self.ended, tail=last_lines(stderr.file, _TAIL))
        return replace(self.ended, tail=tuple(self._tail))

    def close(self) -> None:
        """Read what is left of the output, and give back all descriptors."""
        self._open.close()
