"""The agent's end of the socket to its Airflow task, on its own thread.

The main thread may wait inside torch, in C++, for minutes. Meanwhile a stop, and the death of the
task, must be noticed. So the socket's thread does all reading and writing, and calls back into the
rest of the process. Messages for the task are queued. If the task reads slowly, ``congested`` makes
the workers wait in their prints, so that the queue stays small. When the socket closes, the task is
gone, and messages go to the orphan log.

Before the thread starts, the process has one thread and may fork. In that time ``first_spec`` reads
the job on the caller's thread, and inside a ``started_by_input`` block a signal starts the thread
as soon as there is more to read.
"""

from __future__ import annotations

import _thread
import logging
import os
import select
import selectors
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, suppress

from llutil.agent_process.input_signal import called_by_input
from llutil.agent_process.orphan_log import OrphanLog
from llutil.agent_process.send_queue import SendQueue
from llutil.errors import ConfigError
from llutil.task_link import messages
from llutil.task_link.decoder import Decoder

__all__ = ["TaskSocket"]

_log = logging.getLogger(__name__)

_READ_SIZE = 1 << 18


class TaskSocket:
    """The socket to the task. Its thread runs after ``start``, or after ``close``, which starts it
    too.

    ``on_stop(reason)`` is called on that thread: for each stop, and once when the task is gone.
    ``on_steer(flags, why)`` is called there for flags that the task wants to be raised.
    Other threads may call ``spec``, ``send``, ``congested``, ``when_not_congested`` and ``close``.
    """

    def __init__(
        self,
        sock: socket.socket,
        orphan_log: OrphanLog,
        on_stop: Callable[[str], None],
        on_steer: Callable[[Sequence[str], str], None],
    ) -> None:
        self._sock = sock
        self._sock.setblocking(False)
        self._orphan_log = orphan_log
        self._on_stop = on_stop
        self._on_steer = on_steer
        self._decoder = Decoder()
        self._start_lock = threading.RLock()
        """Guards ``_started``. Reentrant: a signal handler may call ``start`` while the same thread
        is inside it.
        """
        self._queue = SendQueue(sock)
        self._lock = threading.Lock()
        """Guards ``_resume_callbacks``."""
        self._resume_callbacks: list[Callable[[], None]] = []
        self._for_orphan_log: deque[messages.Message] = deque()
        """Messages that were sent after the task had gone."""
        self._unhandled: deque[messages.Message] = deque()
        """Messages that came before the thread had started, and that it handles first."""
        self._started = False
        self._task_gone = False
        self._close_deadline: float | None = None
        self._spec: messages.Spec | None = None
        self._error: ConfigError | None = None
        self._spec_settled = threading.Event()
        self._wake_read, self._wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._thread_ended = threading.Event()

    def start(self) -> None:
        """Start the thread, unless it was started. ``on_stop`` may be called at once."""
        with self._start_lock:
            if not self._started:
                self._started = True
                # Thread.start takes a lock of Python's, which interrupted code may hold.
                _thread.start_new_thread(self._run, ())

    def first_spec(self, deadline: float) -> messages.Spec | None:
        """Before ``start``: send what is queued, and read the job on the caller's thread. Never
        raises.

        None if no job came by ``deadline``, or if something else came. Then ``spec`` says what is
        wrong, after ``start``.
        """
        poll = select.poll()
        poll.register(self._sock, select.POLLIN)
        self._queue.flush()
        while self._spec is None and not (self._unhandled or self._error):
            left = deadline - time.monotonic()
            if left <= 0 or not poll.poll(1000 * left) or self._started:
                break
            try:
                data = self._sock.recv(_READ_SIZE)
                for message in self._decoder.feed(data):
                    if isinstance(message, messages.Spec) and self._spec is None:
                        self._handle(message)
                    else:
                        self._unhandled.append(message)
            except BlockingIOError:
                continue
            except OSError:
                break
            except ConfigError as error:
                self._error = error
                self._spec_settled.set()
            if not data:
                break  # the socket is closed; the thread will read that too, and handle it
        return self._spec if not self._unhandled else None

    def started_by_input(self) -> AbstractContextManager[None]:
        """Inside this block, ``start`` is called by a signal handler as soon as there is something
        to read. For the main thread, which runs the handlers, before ``start``.
        """
        return called_by_input(self._sock.fileno(), self.start)

    def spec(self, deadline: float) -> messages.Spec:
        """Wait for the job until ``deadline`` (``time.monotonic()``).

        :raises ConfigError: no spec came, or another message did.
        """
        self._spec_settled.wait(max(0.0, deadline - time.monotonic()))
        if self._error is not None:
            raise self._error
        if self._spec is None:
            raise ConfigError(
                "no spec came over the agent's socket; only the operator starts this process, use "
                "llutil.launcher.launch_agent to launch a job from a program"
            )
        return self._spec

    def send(self, message: messages.Message, *, replaceable: bool = False) -> bool:
        """Queue ``message`` for the task, or for the orphan log if the task is gone. Never blocks.

        One that a newer one makes needless (``replaceable``) is refused while the task has left too
        many of these unread. Returns whether it was taken.
        """
        if replaceable and self._queue.has_many_replaceable:
            return False
        if not self._queue.put(messages.encode(message), replaceable=replaceable):
            self._for_orphan_log.append(message)
        self._wake()
        return True

    @property
    def task_gone(self) -> bool:
        """Whether the task is known to be gone."""
        return self._task_gone

    def fds(self) -> set[int]:
        """Descriptors that a forked child must not keep."""
        return {self._sock.fileno(), self._wake_read, self._wake_write, *self._orphan_log.readers}

    def congested(self) -> bool:
        """Whether so many messages wait for the task that workers should wait with their output."""
        return self._queue.congested

    def when_not_congested(self, resume: Callable[[], None]) -> None:
        """Call ``resume``, on the socket's thread, once the task has read enough."""
        with self._lock:
            self._resume_callbacks.append(resume)
        self._wake()

    def close(self, deadline: float) -> None:
        """Deliver what is queued, until ``deadline`` at the latest, and end the thread."""
        self._close_deadline = deadline
        self.start()
        self._wake()
        self._thread_ended.wait(max(0.0, deadline - time.monotonic()) + 1.0)

    def _wake(self) -> None:
        with suppress(BlockingIOError):  # the pipe is full of wake-ups already
            os.write(self._wake_write, b"\0")

    def _run(self) -> None:
        try:
            with selectors.DefaultSelector() as selector:
                selector.register(self._wake_read, selectors.EVENT_READ)
                selector.register(self._sock, selectors.EVENT_READ)
                self._handle_unhandled()
                while not self._finished():
                    self._turn(selector)
        except Exception:  # noqa: BLE001 - the edge of the thread
            # Without this thread the job could not be stopped any more: end it.
            _log.exception("the agent's socket to its task failed")
            self._on_stop("the agent's socket to its task failed")
        finally:
            self._spec_settled.set()
            self._sock.close()
            self._thread_ended.set()

    def _finished(self) -> bool:
        if self._close_deadline is None:
            return False
        empty = self._queue.empty and not self._for_orphan_log
        return empty or time.monotonic() >= self._close_deadline

    def _turn(self, selector: selectors.BaseSelector) -> None:
        if not self._task_gone:
            wanted = selectors.EVENT_READ | (0 if self._queue.empty else selectors.EVENT_WRITE)
            selector.modify(self._sock, wanted)
        deadline = self._close_deadline
        timeout = None if deadline is None else max(0.0, deadline - time.monotonic())
        for key, events in selector.select(timeout):
            if key.fd == self._wake_read:
                os.read(self._wake_read, 4096)
                continue
            read = self._read() if events & selectors.EVENT_READ else True
            written = self._queue.flush() if read and events & selectors.EVENT_WRITE else True
            if not (read and written):
                self._on_task_gone(selector)
        while self._task_gone and self._for_orphan_log:
            self._orphan_log.take(self._for_orphan_log.popleft())
        self._resume_output()

    def _read(self) -> bool:
        try:
            data = self._sock.recv(_READ_SIZE)
        except BlockingIOError:
            return True
        except OSError:
            return False
        try:
            for message in self._decoder.feed(data):
                self._handle(message)
        except ConfigError as error:
            self._on_bad_message(error)
        return bool(data)

    def _handle_unhandled(self) -> None:
        try:
            while self._unhandled:
                self._handle(self._unhandled.popleft())
        except ConfigError as error:
            self._on_bad_message(error)

    def _on_bad_message(self, error: ConfigError) -> None:
        self._error = self._error or error
        if self._spec is None:
            self._spec_settled.set()  # ``spec`` raises the error
        else:
            self._on_stop(str(error))

    def _handle(self, message: messages.Message) -> None:
        match message:
            case messages.Spec():
                self._spec = message
                self._spec_settled.set()
            case messages.Stop(reason=reason):
                self._on_stop(reason)
            case messages.Steer(flags=flags, why=why):
                self._on_steer(flags, why)
            case _:
                kind = type(message).__name__
                raise ConfigError(f"a {kind} came from the task, which only an agent may send")

    def _on_task_gone(self, selector: selectors.BaseSelector) -> None:
        """The task is gone: write the messages that it has not read to the orphan log, and end the
        job.
        """
        if self._task_gone:
            return
        selector.unregister(self._sock)
        self._task_gone = True
        unread = self._queue.close()
        self._orphan_log.begin(self._spec.orphan_log if self._spec else os.devnull)
        for message in Decoder().feed(unread):
            self._orphan_log.take(message)
        if self._close_deadline is None:
            self._on_stop("its Airflow task is gone")

    def _resume_output(self) -> None:
        if not self._queue.not_congested:
            return
        with self._lock:
            waiting, self._resume_callbacks = self._resume_callbacks, []
        for resume in waiting:
            resume()
