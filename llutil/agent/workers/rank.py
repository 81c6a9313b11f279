"""One rank of this node: its process, its outcome pipe and its output, until all of them have
ended.

It runs on the agent's loop and thread. ``rank_group`` and the
agent decide what its end means for other ranks.
"""

from __future__ import annotations

import logging
import os
import signal
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial

from llutil.agent.event_loop import EventLoop
from llutil.agent.observer import AgentObserver
from llutil.agent.output.filtered_lines import FilteredLines
from llutil.agent.output.log_files import Route, last_lines, open_log
from llutil.agent.output.pipe_pump import PipePump, Stream
from llutil.agent.start_methods.starter import Starter, StartRequest, WorkerProcess
from llutil.agent.worker_side.outcome_pipe import (
    RANK_DID_NOT_END,
    ErrorNote,
    OutcomeReader,
    Refused,
    Returned,
)
from llutil.agent.workers.rank_exit import RankExit
from llutil.agent.workers.rank_plan import RankPlan
from llutil.agent.workers.standard_input import terminal_settings_restored
from llutil.serialization.shared_objects import SharedObjects
from llutil.system.exit_status import exit_text

__all__ = ["Worker"]

_log = logging.getLogger(__name__)

# Bytes read from a pipe at once.
_READ_SIZE = 1 << 18
# Lines of standard error that are kept for the report.
_TAIL_LINES = 40


class Worker:
    """One rank. ``ended`` is None while it runs. ``reported_error`` says that it reported a
    failure, or that it is stuck; its process may still run, or hang. ``stuck`` says that it hangs
    or does not end, so that it will not end by itself. ``check`` raises if the wait for its start
    should end.
    """

    def __init__(
        self,
        plan: RankPlan,
        starter: Starter,
        order_fd: int,
        loop: EventLoop,
        observer: AgentObserver,
        shared: SharedObjects | None = None,
        check: Callable[[], None] = lambda: None,
    ) -> None:
        self.plan = plan
        self.ended: RankExit | None = None
        self.exit_deadline: float | None = None
        self.reported_error = False
        self._stuck_note: ErrorNote | None = None
        self._signals_sent: set[int] = set()
        """The signals that were sent to end it."""
        self._loop = loop
        self._observer = observer
        self._outcome = OutcomeReader()
        self._stderr_tail: deque[str] = deque(maxlen=_TAIL_LINES)
        self._open = ExitStack()
        self._open.enter_context(terminal_settings_restored(plan.stdin))
        outcome_read, outcome_write = os.pipe2(os.O_CLOEXEC)
        self._outcome_fd = outcome_read
        self._open.callback(os.close, outcome_read)
        with ExitStack() as failed, ExitStack() as started:
            failed.callback(self.close)
            started.callback(os.close, outcome_write)
            stdout = self._open_stream(plan.stdout, "stdout", started)
            stderr = self._open_stream(plan.stderr, "stderr", started)
            shared_fd = None
            if shared is not None:
                shared_fd = shared.new_channel()
                started.callback(os.close, shared_fd)
            request = StartRequest(
                order_fd=order_fd,
                outcome_fd=outcome_write,
                stdin=plan.stdin,
                stdout=stdout,
                stderr=stderr,
                env=plan.env,
                shared_fd=shared_fd,
                check=check,
            )
            self.process: WorkerProcess = starter.start(request)
            failed.pop_all()
        os.set_blocking(outcome_read, False)
        loop.watch(outcome_read, self._on_outcome)
        loop.watch(self.process.exit_fd, self._on_exit)
        self._open.callback(self.process.close)
        self._open.callback(loop.unwatch, self.process.exit_fd)
        self._open.callback(loop.unwatch, outcome_read)

    def _open_stream(self, route: Route, stream: str, started: ExitStack) -> int | None:
        """The descriptor for one of the worker's streams; None if it shares the agent's."""
        if route.is_direct:
            assert route.file is not None
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
        # Standard error always goes through a pipe, because its last lines are kept for the report.
        filtered = FilteredLines(route, self.plan.prefix, self._open)
        read, write = os.pipe2(os.O_CLOEXEC)
        started.callback(os.close, write)
        about = Stream(
            name=f"{stream} of rank {self.plan.rank}",
            file=route.file,
            raw=own,
            at_once=self.plan.stdin is not None,
            shown=route.console,
            complete=bool(route.wanted),  # all lines have to be looked at
        )
        take = partial(self._take_lines, stream, filtered, raw=own)
        PipePump(read, about, take, self._loop, self._observer, self._open)
        return write

    def _take_lines(
        self, stream: str, filtered: FilteredLines, lines: Sequence[str], *, raw: bool
    ) -> None:
        """Handle lines that the rank printed. With ``raw``, the console has them already."""
        route = self.plan.stderr if stream == "stderr" else self.plan.stdout
        if stream == "stderr":
            self._stderr_tail.extend(lines)
        filtered.take(lines)
        if lines and route.console and not raw:
            self._observer.output_lines(self.plan.rank, self.plan.prefix, stream, lines)

    def expect(self, number: int) -> None:
        """The worker is about to be ended by this signal, with all other processes of the job."""
        self._signals_sent.add(number)

    def signal(self, number: int) -> None:
        """Send the worker a signal to end it, and its children too if it would not pass the signal
        on (a shell, for example).
        """
        self._signals_sent.add(number)
        if self.ended is not None and not self.plan.signal_session:
            return
        self.process.send_signal(number, group=self.plan.signal_session)

    def _on_outcome(self) -> None:
        if self._read_outcome() is False:
            self._loop.unwatch(self._outcome_fd)
        if self.exit_deadline is None and not self.reported_error:
            match self._outcome.note():
                case Returned() | Refused():
                    self.exit_deadline = time.monotonic() + self.plan.exit_timeout
                case ErrorNote():
                    self.reported_error = True
                case None:
                    pass

    def _read_outcome(self) -> bool | None:
        """Read the pipe once: True if there was data, False at the end of the pipe, None if there
        is no data yet.
        """
        try:
            data = os.read(self._outcome_fd, _READ_SIZE)
        except BlockingIOError:
            return None
        self._outcome.feed(data)
        return bool(data)

    def _on_exit(self) -> None:
        status = self.process.poll()
        if status is not None:
            self._take_end(status)

    def _take_end(self, status: int) -> None:
        self._loop.unwatch(self.process.exit_fd)
        # Children of the worker may keep the pipe open. The worker wrote only what is in it now.
        while self._read_outcome():
            pass
        self._loop.unwatch(self._outcome_fd)
        note = self._stuck_note or self._outcome.note()
        if self.plan.returns:
            failed = not isinstance(note, Returned | Refused)
            if not failed and status != 0:
                _log.warning(
                    "rank %d returned its value and then ended with %s; the value counts",
                    self.plan.rank,
                    exit_text(status),
                )
        else:
            # Clean-up code of a script may end the process with status 0 after an exception.
            failed = status != 0 or isinstance(note, ErrorNote)
        # If it died of a signal that was not sent here, it may have been dying before: to end takes
        # some time for a process with a lot of memory, or a GPU's, to free.
        stopped = bool(self._signals_sent) and (status >= 0 or -status in self._signals_sent)
        if self.stuck:
            stopped = False  # it has failed by itself, and was ended for that
        if stopped and isinstance(note, ErrorNote) and note.exit_code is not None:
            status = note.exit_code  # it was ending with this code
        self.ended = RankExit(
            rank=self.plan.rank,
            local_rank=self.plan.local_rank,
            pid=self.process.pid,
            status=status,
            note=note,
            tail=(),
            failed=failed,
            at=note.at if isinstance(note, ErrorNote) else time.monotonic(),
            stopped_by_agent=stopped,
        )

    @property
    def stuck(self) -> bool:
        """Whether ``take_as_stuck`` was called."""
        return self._stuck_note is not None

    def take_as_stuck(self, kind: str, text: str, trace: str = "") -> None:
        """It has failed, whenever the kernel ends it: it hangs (``kind`` is RANK_HANGS or
        RANK_WAITS), or does not end.
        """
        self.exit_deadline = None
        self.reported_error = True
        self._stuck_note = ErrorNote(kind=kind, text=text, trace=trace, at=time.monotonic())

    def is_overdue(self, now: float) -> bool:
        """Whether it returned a value and its process should have ended by ``now``."""
        return self.ended is None and self.exit_deadline is not None and now >= self.exit_deadline

    def give_time(self, seconds: float, until: float) -> None:
        """Let its process end so many seconds later, and not before ``until``."""
        if self.exit_deadline is not None:
            self.exit_deadline = max(self.exit_deadline + seconds, until)

    def kill_overdue(self, stacks: str = "") -> None:
        """Kill it: its process has not ended ``exit_timeout`` seconds after its value came.
        ``stacks`` shows what its threads are doing.
        """
        text = (
            f"the rank returned its value, and {self.plan.exit_timeout:g} s later (exit_timeout) "
            "its process had not ended: a thread, an executor, a child process or a function "
            "registered with atexit still ran. It was killed, and what it was writing may be "
            "incomplete"
        )
        self.take_as_stuck(RANK_DID_NOT_END, text, stacks)
        self.signal(signal.SIGKILL)

    def refresh(self) -> None:
        """Check whether the process has ended, in case an event was missed."""
        if self.ended is None:
            self._on_exit()

    def check(self) -> None:
        """Check the process and its outcome pipe now, without waiting for their events."""
        self.refresh()
        if self.ended is None and not self.reported_error:
            self._on_outcome()

    def give_up(self) -> None:
        """Take it as ended by SIGKILL, if it has not ended: nobody waits for it any longer."""
        self.refresh()
        if self.ended is None:
            self.expect(signal.SIGKILL)
            self._take_end(-signal.SIGKILL)

    def with_tail(self) -> RankExit:
        """How the rank ended, with the last lines of its standard error. Call it when its pipes
        have been read.
        """
        assert self.ended is not None
        stderr = self.plan.stderr
        if stderr.is_direct:
            assert stderr.file is not None
            return replace(self.ended, tail=last_lines(stderr.file, _TAIL_LINES))
        return replace(self.ended, tail=tuple(self._stderr_tail))

    def close(self) -> None:
        """Read what is left of the output, and close all descriptors."""
        self._open.close()
