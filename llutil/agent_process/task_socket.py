"""The agent's end of the socket to its Airflow task, on a thread of its own.

The main thread may wait inside torch, in C, for minutes. A stop must be heard all the same, and a
task that died must be noticed: so this thread does all the reading and writing, and tells the rest
of the process by calling back. Words for the task are queued; if it reads slowly, ``congested``
lets the workers' output wait at its source, so that memory stays bounded. When the socket closes
the task is gone, and words go to the orphan_log.

There is a time before the thread, for what only a process without threads can do: ``first_spec``
reads the job, and inside ``listening`` a signal starts the thread as soon as anything else is to be
heard.
"""

from __future__ import annotations

import fcntl
import logging
import os
import select
import selectors
import signal
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from llutil.agent_process.orphan_log import OrphanLog
from llutil.agent_process.send_queue import SendQueue
from llutil.errors import ConfigError
from llutil.task_link import messages

__all__ = ["TaskSocket"]

_log = logging.getLogger(__name__)

_CHUNK = 1 << 18


class TaskSocket:
    """The socket, heard from ``start`` on, which ``close`` calls too. ``on_stop(reason)`` is
    called, on the link's thread, for each stop and once when the task is gone.

    ``orphan_log`` is known once the spec is. Callers on other threads use ``spec``, ``send``,
    ``congested``, ``when_clear`` and ``close``.
    """

    def __init__(
        self, sock: socket.socket, orphan_log: OrphanLog, on_stop: Callable[[str], None]
    ) -> None:
        self._sock = sock
        self._sock.setblocking(False)
        self._orphan_log = orphan_log
        self._on_stop = on_stop
        self._decoder = messages.Decoder()
        self._start_lock = threading.RLock()
        """For ``start``, which a signal handler may call inside itself."""
        self._queue = SendQueue(sock)
        self._lock = threading.Lock()
        """Guards the waiting callbacks."""
        self._waiting: list[Callable[[], None]] = []
        self._after: deque[messages.Message] = deque()
        """What was sent after the task had gone."""
        self._early: deque[messages.Message] = deque()
        """What came before the thread was there to take it."""
        self._started = False
        self._gone = False
        self._closing: float | None = None
        self._spec: messages.Spec | None = None
        self._error: ConfigError | None = None
        self._heard = threading.Event()
        self._wake_read, self._wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._thread = threading.Thread(target=self._run, name="llutil-link", daemon=True)

    def start(self) -> None:
        """Begin to listen, unless that was done. From here on ``on_stop`` may be called, also at
        once.
        """
        with self._start_lock:
            if not self._started:
                self._started = True
                self._thread.start()

    def first_spec(self, deadline: float) -> messages.Spec | None:
        """Before ``start``: the job, read on the caller's own thread, and what is queued sent;
        never raises.

        None if there was none by ``deadline``, or something else; ``spec`` says what after
        ``start``.
        """
        poll = select.poll()
        poll.register(self._sock, select.POLLIN)
        self._queue.flush()
        while self._spec is None and not (self._early or self._error):
            left = deadline - time.monotonic()
            if left <= 0 or not poll.poll(1000 * left) or self._started:
                break
            try:
                data = self._sock.recv(_CHUNK)
                for message in self._decoder.feed(data):
                    if isinstance(message, messages.Spec) and self._spec is None:
                        self._take(message)
                    else:
                        self._early.append(message)
            except BlockingIOError:
                continue
            except OSError:
                break
            except ConfigError as error:
                self._error = error
                self._heard.set()
            if not data:
                break  # the thread will read the same, and knows what it means
        return self._spec if not self._early else None

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Before ``start``: call it if anything comes, for as long as the main thread is inside,
        busy with Python.
        """
        fd = self._sock.fileno()
        before = signal.signal(signal.SIGIO, lambda *_: self._start_if_told())
        fcntl.fcntl(fd, fcntl.F_SETOWN, os.getpid())
        flags = fcntl.fcntl(fd, fcntl.F_GETFL)
        fcntl.fcntl(fd, fcntl.F_SETFL, flags | os.O_ASYNC)
        try:
            self._start_if_told()  # of what came before there was a signal for it
            yield
        finally:
            fcntl.fcntl(fd, fcntl.F_SETFL, flags)
            signal.signal(signal.SIGIO, before)

    def _start_if_told(self) -> None:
        # The signal also means that the task has read something.
        poll = select.poll()
        poll.register(self._sock, select.POLLIN)
        if poll.poll(0):
            self.start()

    def spec(self, deadline: float) -> messages.Spec:
        """The job, waited for until ``deadline`` (``time.monotonic()``).

        :raises ConfigError: no spec came, or something that is none.
        """
        self._heard.wait(max(0.0, deadline - time.monotonic()))
        if self._error is not None:
            raise self._error
        if self._spec is None:
            raise ConfigError(
                "no spec came over the agent's socket; it is started by the operator only"
            )
        return self._spec

    def send(self, message: messages.Message) -> None:
        """Queue ``message`` for the task, or for the orphan_log if the task is gone. Never
        blocks.
        """
        if not self._queue.put(messages.encode(message)):
            self._after.append(message)
        self._wake()

    @property
    def gone(self) -> bool:
        """Whether the task is known to be gone."""
        return self._gone

    def fds(self) -> set[int]:
        """Descriptors that belong to this process alone."""
        return {self._sock.fileno(), self._wake_read, self._wake_write, *self._orphan_log.readers}

    def congested(self) -> bool:
        """Whether the task is so far behind that workers should wait with more output."""
        return self._queue.congested

    def when_clear(self, resume: Callable[[], None]) -> None:
        """Call ``resume``, on the link's thread, once the task has caught up."""
        with self._lock:
            self._waiting.append(resume)
        self._wake()

    def close(self, deadline: float) -> None:
        """Deliver what is queued, until ``deadline`` at the latest, and end the thread."""
        self._closing = deadline
        self.start()
        self._wake()
        self._thread.join(max(0.0, deadline - time.monotonic()) + 1.0)

    def _wake(self) -> None:
        with suppress(BlockingIOError):  # enough wake-ups are on their way
            os.write(self._wake_write, b"\0")

    def _run(self) -> None:
        try:
            with selectors.DefaultSelector() as selector:
                selector.register(self._wake_read, selectors.EVENT_READ)
                selector.register(self._sock, selectors.EVENT_READ)
                self._take_early()
                while not self._finished():
                    self._turn(selector)
        except Exception:  # noqa: BLE001 - the edge of the thread
            # A fault of this thread's must end the job, or nobody would ever hear of it again.
            _log.exception("the agent's link to its task failed")
            self._on_stop("the agent's link to its task failed")
        finally:
            self._heard.set()
            self._sock.close()

    def _finished(self) -> bool:
        if self._closing is None:
            return False
        empty = self._queue.empty and not self._after
        return empty or time.monotonic() >= self._closing

    def _turn(self, selector: selectors.BaseSelector) -> None:
        if not self._gone:
            wanted = selectors.EVENT_READ | (0 if self._queue.empty else selectors.EVENT_WRITE)
            selector.modify(self._sock, wanted)
        timeout = None if self._closing is None else max(0.0, self._closing - time.monotonic())
        for key, events in selector.select(timeout):
            if key.fd == self._wake_read:
                os.read(self._wake_read, 4096)
                continue
            read = self._read() if events & selectors.EVENT_READ else True
            written = self._queue.flush() if read and events & selectors.EVENT_WRITE else True
            if not (read and written):
                self._lose(selector)
        while self._gone and self._after:
            self._orphan_log.take(self._after.popleft())
        self._let_flow()

    def _read(self) -> bool:
        try:
            data = self._sock.recv(_CHUNK)
        except BlockingIOError:
            return True
        except OSError:
            return False
        try:
            for message in self._decoder.feed(data):
                self._take(message)
        except ConfigError as error:
            self._refuse(error)
        return bool(data)

    def _take_early(self) -> None:
        try:
            while self._early:
                self._take(self._early.popleft())
        except ConfigError as error:
            self._refuse(error)

    def _refuse(self, error: ConfigError) -> None:
        self._error = self._error or error
        if self._spec is None:
            self._heard.set()  # who waits for the spec is told by that
        else:
            self._on_stop(str(error))

    def _take(self, message: messages.Message) -> None:
        match message:
            case messages.Spec():
                self._spec = message
                self._heard.set()
            case messages.Stop(reason=reason):
                self._on_stop(reason)
            case _:
                raise ConfigError(
                    f"a {type(message).__name__} came from the task; wanted a spec or a stop"
                )

    def _lose(self, selector: selectors.BaseSelector) -> None:
        """The task is gone: its unread words are kept, and the job has to end."""
        if self._gone:
            return
        selector.unregister(self._sock)
        self._gone = True
        unread = self._queue.close()
        self._orphan_log.begin(self._spec.orphan_log if self._spec else os.devnull)
        for message in messages.Decoder().feed(unread):
            self._orphan_log.take(message)
        if self._closing is None:
            self._on_stop("its Airflow task is gone")

    def _let_flow(self) -> None:
        if not self._queue.clear:
            return
        with self._lock:
            waiting, self._waiting = self._waiting, []
        for resume in waiting:
            resume()
