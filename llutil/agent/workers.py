"""The worker processes of one round: started together, heard as they end, ended together.

One ``Worker`` is one rank: its process, its outcome pipe and its output. ``Workers`` is all of a node's. Both
live on the agent's loop and thread. What an end *means* (restart, verdict) is the agent's to decide.
"""

from __future__ import annotations

import logging
import os
import signal
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace

from llutil.agent.guardian import Guardian
from llutil.agent.host import Host
from llutil.agent.logs import Route, last_lines, open_log
from llutil.agent.loop import Loop
from llutil.agent.outcome import Collector, ErrorNote, Returned
from llutil.agent.processes import end_all, session_members, signal_process
from llutil.agent.starting import Process, Start, Starter
from llutil.agent.through import Through
from llutil.exits import exit_text
from llutil.lines import LineSplitter

__all__ = ["Ended", "RankPlan", "Worker", "Workers"]

_log = logging.getLogger(__name__)

_CHUNK = 1 << 18  # bytes read from a pipe at once
_PIPES_MOST = 1 << 20  # bytes that a pipe can hold at most (Linux's limit for the unprivileged)
_EXIT_AFTER_VALUE = 10.0  # seconds a worker that handed in its value may take to leave
_LEAVE = 1.0  # seconds a worker that said that it failed has to leave by itself
_KILL_DEADLINE = 10.0  # seconds for the kernel to end what was sent SIGKILL
_GROUP_PERIOD = 0.05  # seconds between two looks at a stopping command's session
_LONGEST_REASON = 500  # characters of an error's message that a reason repeats
_TAIL = 40  # lines of standard error kept for the report


@dataclass(frozen=True, slots=True, kw_only=True)
class RankPlan:
    """How one rank is started. ``returns`` says whether it is a function, which must hand in a value."""

    rank: int
    local_rank: int
    prefix: str
    env: Mapping[str, str]
    stdout: Route
    stderr: Route
    returns: bool
    whole_group: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """How one rank ended. ``note`` is what it said; ``status`` what the kernel said (negative: a signal).

    ``at`` is when, on ``time.monotonic()``: when it failed by its own word, else when its end was noticed. ``asked``
    says that it was asked or made to end before it had ended, and did not die of another signal than that.
    """

    rank: int
    local_rank: int
    pid: int
    status: int
    note: Returned | ErrorNote | None
    tail: tuple[str, ...]
    failed: bool
    at: float
    asked: bool = False

    @property
    def was_ended(self) -> bool:
        """Whether it failed only because it was ended with the round, and without a word of its own."""
        return self.failed and self.asked and self.note is None

    def failed_before(self, when: float) -> bool:
        """Whether it had failed by itself at ``when``, though its process may have been noticed to end later."""
        said_later = isinstance(self.note, ErrorNote) and self.at > when
        return self.failed and not self.was_ended and not said_later

    @property
    def reason(self) -> str:
        """One line, not too long: the error, or what the exit means."""
        match self.note:
            case ErrorNote(kind=kind, text=text):
                said = text.strip().splitlines()
                return f"{kind}: {said[0]}"[:_LONGEST_REASON] if said else kind
            case Returned() if self.failed:
                return exit_text(self.status)
            case None if self.failed and self.status == 0:
                return "ended with exit code 0 but returned no value (os._exit, or an interrupted write)"
            case _:
                return exit_text(self.status)


class Worker:
    """One rank. ``ended`` is None while it runs."""

    def __init__(
        self, plan: RankPlan, starter: Starter, order_fd: int, loop: Loop, host: Host
    ) -> None:
        self.plan = plan
        self.ended: Ended | None = None
        self.value_deadline: float | None = None
        self.erred = (
            False  # it said that it failed; its process may still be leaving, or hang doing so
        )
        self._sent: set[int] = set()
        """The signals that it was asked or made to end by."""
        self._loop = loop
        self._host = host
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
                self.process: Process = starter.start(start)
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
        own = route.file is None and route.console and not self._host.captures
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
        _Pump(self, read, stream, copy, self._loop, self._host, self._open, raw=own)
        return write

    def take_lines(self, stream: str, lines: Iterable[str], *, raw: bool) -> None:
        """Lines that the rank printed; ``raw``: they have been shown already, as they came."""
        route = self.plan.stderr if stream == "stderr" else self.plan.stdout
        for text in lines:
            if stream == "stderr":
                self._tail.append(text)
            if route.console and not raw:
                self._host.line(self.plan.rank, self.plan.prefix, stream, text)

    def signal(self, number: int) -> None:
        """Have the worker end, and its children too where it would not pass the signal on (a shell, say)."""
        self._sent.add(number)
        if self.ended is not None and not self.plan.whole_group:
            return
        if not self.plan.whole_group:
            signal_process(self.process.pid, number)
            return
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, number)

    def _on_outcome(self) -> None:
        if not self._read_outcome():
            self._loop.unwatch(self._outcome_fd)
        if self.value_deadline is None and not self.erred:
            match self._collector.note():
                case Returned():
                    self.value_deadline = time.monotonic() + _EXIT_AFTER_VALUE
                case ErrorNote():
                    self.erred = True
                case None:
                    pass

    def _read_outcome(self) -> bool:
        try:
            data = os.read(self._outcome_fd, _CHUNK)
        except BlockingIOError:
            return False
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
        note = self._collector.note()
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
        self.ended = Ended(
            rank=self.plan.rank,
            local_rank=self.plan.local_rank,
            pid=self.process.pid,
            status=status,
            note=note,
            tail=(),
            failed=failed,
            at=note.at if isinstance(note, ErrorNote) else time.monotonic(),
            # What dies of a signal that nobody here sent may have been dying already: to end takes a process some
            # time where it has a lot of memory, or a GPU's, to give back.
            asked=bool(self._sent) and (status >= 0 or -status in self._sent),
        )

    def refresh(self) -> None:
        """Look at the process itself, in case an event was missed."""
        if self.ended is None:
            self._on_exit()

    def look(self) -> None:
        """Look at the process and at what it has said so far: its event may be on its way."""
        self.refresh()
        if self.ended is None and not self.erred:
            self._on_outcome()

    def with_tail(self) -> Ended:
        """How the rank ended, with the last lines of its standard error, once its pipes were read."""
        assert self.ended is not None
        stderr = self.plan.stderr
        if stderr.file is not None and not stderr.console:
            return replace(self.ended, tail=last_lines(stderr.file, _TAIL))
        return replace(self.ended, tail=tuple(self._tail))

    def close(self) -> None:
        """Read what is left of the output, and give back all descriptors."""
        self._open.close()


class _Pump:
    """One stream of one worker: pipe → log file and host; ``raw``: to the agent's own standard error, as it comes."""

    def __init__(
        self,
        worker: Worker,
        fd: int,
        stream: str,
        copy: int | None,
        loop: Loop,
        host: Host,
        owner: ExitStack,
        *,
        raw: bool,
    ) -> None:
        self._worker = worker
        self._through = Through(loop, self._resume) if raw else None
        self._fd = fd
        self._stream = stream
        self._copy = copy
        self._splitter = LineSplitter()
        self._loop = loop
        self._host = host
        os.set_blocking(fd, False)
        self._loop.watch(fd, self._on_readable)
        owner.callback(self._finish)

    def _on_readable(self) -> None:
        if not self._read() or (self._through is not None and self._through.behind):
            self._loop.unwatch(self._fd)
        elif self._host.congested():
            # The worker waits in its print until the host has caught up, as it would on a slow terminal.
            self._loop.unwatch(self._fd)
            self._host.when_clear(lambda: self._loop.call_soon(self._resume))

    def _resume(self) -> None:
        if self._fd >= 0:
            self._loop.watch(self._fd, self._on_readable)

    def _read(self) -> bool:
        try:
            data = os.read(self._fd, _CHUNK)
        except BlockingIOError:
            return False
        self._keep(data)
        if self._through is not None:
            self._through.feed(data)
        lines = self._splitter.feed(data, time.monotonic())
        self._worker.take_lines(self._stream, lines, raw=self._through is not None)
        return bool(data)

    def _keep(self, data: bytes) -> None:
        """Write to the log file. A full disk costs the log and not the job: the console has the lines too."""
        if self._copy is None:
            return
        try:
            os.write(self._copy, data)
        except OSError as error:
            self._copy = None  # its descriptor is the worker's to close
            _log.error(
                "the log of %s of rank %d ends here: %s",
                self._stream,
                self._worker.plan.rank,
                error.strerror,
            )

    def _finish(self) -> None:
        self._loop.unwatch(self._fd)
        # At most what the pipe held when the job ended: somebody who got away may go on writing.
        for _ in range(_PIPES_MOST // _CHUNK):
            if not self._read():
                break
        if self._through is not None:
            self._through.close()
        lines = self._splitter.finish()
        self._worker.take_lines(self._stream, lines, raw=self._through is not None)
        os.close(self._fd)
        self._fd = -1


class Workers:
    """All ranks of this node in one round."""

    def __init__(
        self,
        plans: Sequence[RankPlan],
        *,
        starter: Starter,
        order_fd: int,
        mark: str,
        guardian: Guardian,
        loop: Loop,
        host: Host,
    ) -> None:
        self._mark = mark
        self._starter = starter
        self._guardian = guardian
        self._loop = loop
        self._all: list[Worker] = []
        try:
            for plan in plans:
                worker = Worker(plan, starter, order_fd, loop, host)
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
        """When a rank that handed in its value must have left, on ``time.monotonic()``; infinity if none has."""
        waiting = (
            w.value_deadline for w in self._all if w.ended is None and w.value_deadline is not None
        )
        return min(waiting, default=float("inf"))

    def end_overdue(self) -> None:
        """Kill ranks that handed in their value and would not leave: a function that returned has ended."""
        now = time.monotonic()
        for worker in self._all:
            due = worker.value_deadline
            if worker.ended is None and due is not None and now >= due:
                _log.warning("rank %d returned but did not leave; killed", worker.plan.rank)
                worker.value_deadline = None
                worker.signal(signal.SIGKILL)

    def refresh(self) -> None:
        """Look at every process, in case an event was missed: the safety net's period is the caller's."""
        for worker in self._all:
            worker.look()

    def results(self) -> list[Ended]:
        """How each rank ended, in rank order; only once all have, and after ``stop``."""
        return [worker.with_tail() for worker in self._all if worker.ended is not None]

    def stop(self, number: int, grace: float, hurry: Callable[[], bool] = lambda: False) -> None:
        """Ask every rank to end by ``number``, wait at most ``grace`` seconds, then kill all that is left.

        ``hurry`` is asked while waiting; once it says yes, the rest of the grace period is forgone.

        Afterwards no process of this node's job exists: neither a worker, nor a child of one, in whatever
        session it hid. Descriptors are given back, and the last lines of output delivered.
        """
        deadline = time.monotonic() + grace
        for worker in self._all:
            worker.look()  # who is dead already did not die of this
        # Who has said that it failed is about to leave: the signal would end it first, and hide its exit code.
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
            # A shell is gone at once; the program it ran may still be saving. No descriptor tells its end.
            self._loop.turn(min(deadline, time.monotonic() + _GROUP_PERIOD))
        last = time.monotonic() + _KILL_DEADLINE
        for worker in self._all:
            if worker.ended is None:
                worker.signal(signal.SIGKILL)
        sessions = [w.process.pid for w in self._all]
        left = end_all(sessions, self._mark, last, spare=self._starter.pids)
        if left:
            _log.error("processes %s did not end on SIGKILL; they are stuck in the kernel", left)
        self._loop.until(lambda: self.ended, last)
        for worker in self._all:
            worker.close()
            self._guardian.forget(worker.process.pid)
