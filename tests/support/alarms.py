"""Signal handlers that strike in the middle of what a test runs in the main thread."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ["alarm", "alarm_when"]

_PERIOD = 0.01
"""Seconds between two looks at whether an alarm is due."""


@contextmanager
def alarm(seconds: float, handler: Callable[[], object], every: float = 0.0) -> Iterator[None]:
    """Runs ``handler`` as a signal handler, in the middle of whatever goes on then: after
    ``seconds``, and again when so much time has passed since it ended. (With a timer that goes on
    meanwhile, a busy machine would do nothing else.)
    """

    def called(*_: object) -> None:
        handler()
        signal.setitimer(signal.ITIMER_REAL, every)

    old = signal.signal(signal.SIGALRM, called)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, old)


@contextmanager
def alarm_when(ready: Callable[[], object], handler: Callable[[], object]) -> Iterator[None]:
    """Runs ``handler`` once as a signal handler, as soon as ``ready`` holds, which is asked there
    too. What the test waits for may take long on a busy machine.
    """
    done = False

    def look() -> None:
        nonlocal done
        if not done and ready():
            done = True
            handler()

    with alarm(_PERIOD, look, every=_PERIOD):
        yield
