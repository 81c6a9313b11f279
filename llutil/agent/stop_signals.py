"""Handles the signals that ask a job to stop, while an agent runs on the main thread; afterwards
the old handlers are back.

torch replaces the handlers of its process and never restores them (measured with torch 2.13), and
its handler raises at whatever line was running. Here a signal only wakes the loop, which then stops
the job in order. It raises at once only where the main thread waits inside torch and would not
notice the loop.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any

from torch.distributed.elastic.multiprocessing.api import SignalException

from llutil.agent.event_loop import EventLoop
from llutil.system.send_signal import STOP_SIGNALS

__all__ = ["StopSignals"]


class StopSignals:
    """Installs the handlers for the time of a ``with`` block. Off the main thread it does nothing,
    since Python allows no handlers there.

    ``caught`` is the first stop signal that came, or None. ``urgent`` is True after a second
    Ctrl-C: the user does not want to wait for the grace period. A signal that came when the job had
    already ended was not raised. It is sent again to the caller's own handler when the block ends,
    so that it is never lost. ``numbers`` are the signals that ask the job to stop.
    """

    def __init__(self, loop: EventLoop, numbers: Iterable[signal.Signals] = STOP_SIGNALS) -> None:
        self.caught: signal.Signals | None = None
        self.urgent = False
        self._loop = loop
        self._numbers = tuple(numbers)
        self._raising = False
        self._raised = False
        self._before: dict[signal.Signals, Any] = {}
        self._wakeup_before = -1

    def __enter__(self) -> StopSignals:
        if threading.current_thread() is threading.main_thread():
            for number in self._numbers:
                if signal.getsignal(number) is not signal.SIG_IGN:  # nohup's SIGHUP stays ignored
                    self._before[number] = signal.signal(number, self._handle)
            if signal.getsignal(signal.SIGCHLD) is signal.SIG_IGN:
                # An ignored SIGCHLD may be inherited. With it the kernel keeps no exit status of a
                # worker.
                self._before[signal.SIGCHLD] = signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            if signal.getsignal(signal.SIGPIPE) is signal.SIG_DFL:
                # The caller has undone Python's own setting. Whoever asks this agent something and
                # does not wait for the answer would end it.
                self._before[signal.SIGPIPE] = signal.signal(signal.SIGPIPE, signal.SIG_IGN)
            # The kernel may give a signal to any thread, or just before the main thread waits. Only
            # by this descriptor does Python end that wait then.
            self._wakeup_before = signal.set_wakeup_fd(
                self._loop.wake_fd, warn_on_full_buffer=False
            )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if threading.current_thread() is threading.main_thread():
            signal.set_wakeup_fd(self._wakeup_before)
        for number, handler in self._before.items():
            # None means a handler that was not installed by Python, which cannot put it back.
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)
        if self.caught is not None and not self._raised:
            signal.raise_signal(self.caught)

    def restore_broken_pipe(self) -> None:
        """In a copy of this process that runs the user's code: have SIGPIPE do what it did."""
        if signal.SIGPIPE in self._before:
            signal.signal(signal.SIGPIPE, self._before[signal.SIGPIPE])

    def check(self) -> None:
        """Raise if a signal was caught.

        :raises SignalException: torch's own, as its callers expect.
        """
        if self.caught is not None:
            self._raised = True
            raise SignalException(
                f"Process {os.getpid()} got signal: {self.caught.value}", sigval=self.caught
            )

    def postpone(self) -> None:
        """What was raised is dealt with later, as if it had not been."""
        self._raised = False

    @contextmanager
    def raising(self) -> Iterator[None]:
        """Let a signal raise at once inside the block. For waits inside torch, which the loop
        cannot end.
        """
        self.check()
        self._raising = True
        try:
            yield
        finally:
            self._raising = False

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        if self.caught is None:
            self.caught = signal.Signals(number)
        elif number == signal.SIGINT:
            self.urgent = True
        self._loop.wake()
        if self._raising:
            self._raising = False
            self.check()
