"""Signals that ask a job to stop: heard by the job, and nobody else's handlers are changed."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from types import FrameType

import pytest
from torch.distributed.elastic.multiprocessing.api import SignalException

from llutil.agent.event_loop import EventLoop
from llutil.agent.stop_signals import StopSignals
from llutil.system.send_signal import STOP_SIGNALS
from llutil.system.signal_names import signals_named


@pytest.fixture
def heard() -> Iterator[list[int]]:
    """What reached handlers of the caller's own, which are put back after the test."""
    heard: list[int] = []

    def hear(number: int, _frame: FrameType | None) -> None:
        heard.append(number)

    before = {number: signal.signal(number, hear) for number in STOP_SIGNALS}
    yield heard
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def loop() -> Iterator[EventLoop]:
    with EventLoop() as loop:
        yield loop


def handlers() -> list[object]:
    return [signal.getsignal(number) for number in STOP_SIGNALS]


@pytest.mark.parametrize("number", STOP_SIGNALS)
def test_a_stopping_signal_wakes_the_loop_and_is_raised_when_asked_for(
    loop: EventLoop, heard: list[int], number: signal.Signals
) -> None:
    with StopSignals(loop) as signals:
        signals.check()
        os.kill(os.getpid(), number)
        loop.turn(float("inf"))
        assert signals.caught is number
        with pytest.raises(SignalException) as caught:
            signals.check()
    assert caught.value.sigval is number
    assert heard == []


def test_only_the_signals_that_are_named_are_handled(loop: EventLoop, heard: list[int]) -> None:
    number = signal.SIGUSR1
    with StopSignals(loop, signals_named("SIGINT, SIGUSR1")) as signals:
        os.kill(os.getpid(), signal.SIGTERM)
        assert (heard, signals.caught) == ([signal.SIGTERM], None)
        os.kill(os.getpid(), number)
        loop.turn(float("inf"))
        with pytest.raises(SignalException) as caught:
            signals.check()
    assert caught.value.sigval is number
    assert signal.getsignal(number) is signal.SIG_DFL


def test_the_first_signal_counts_and_a_second_interrupt_makes_it_urgent(
    loop: EventLoop, heard: list[int]
) -> None:
    with StopSignals(loop) as signals:
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)
        assert (signals.caught, signals.urgent) == (signal.SIGTERM, False)
        os.kill(os.getpid(), signal.SIGINT)
        assert (signals.caught, signals.urgent) == (signal.SIGTERM, True)
        with pytest.raises(SignalException):
            signals.check()
    assert heard == []


def test_inside_raising_a_signal_raises_at_once_and_only_once(
    loop: EventLoop, heard: list[int]
) -> None:
    def waits_in_torch(signals: StopSignals) -> None:
        with signals.raising():
            os.kill(os.getpid(), signal.SIGTERM)
            raise AssertionError("it went on")

    with StopSignals(loop) as signals:
        with pytest.raises(SignalException):
            waits_in_torch(signals)
        os.kill(os.getpid(), signal.SIGTERM)  # the clean-up is not interrupted
    assert heard == []


def test_a_signal_that_came_before_raising_is_raised_by_it(
    loop: EventLoop, heard: list[int]
) -> None:
    with StopSignals(loop) as signals:
        os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(SignalException), signals.raising():
            raise AssertionError("it went on")


def test_handlers_are_as_before_after_success(loop: EventLoop, heard: list[int]) -> None:
    before = handlers()
    with StopSignals(loop):
        assert handlers() != before
    assert handlers() == before


def test_handlers_are_as_before_after_a_failure(loop: EventLoop, heard: list[int]) -> None:
    before = handlers()
    with pytest.raises(KeyError), StopSignals(loop):
        raise KeyError
    assert handlers() == before


def test_a_signal_that_came_too_late_to_stop_anything_reaches_the_caller(
    loop: EventLoop, heard: list[int]
) -> None:
    """The job had ended, so nobody asked. Swallowed, the caller's process would ignore a
    SIGTERM.
    """
    with StopSignals(loop):
        os.kill(os.getpid(), signal.SIGTERM)
    assert heard == [signal.SIGTERM]


def test_a_signal_during_a_failure_reaches_the_caller_too(
    loop: EventLoop, heard: list[int]
) -> None:
    def fails() -> None:
        with StopSignals(loop):
            os.kill(os.getpid(), signal.SIGHUP)
            raise KeyError

    with pytest.raises(KeyError):
        fails()
    assert heard == [signal.SIGHUP]


def test_what_the_caller_ignores_stays_ignored(loop: EventLoop, heard: list[int]) -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with StopSignals(loop) as signals:
        os.kill(os.getpid(), signal.SIGHUP)
        assert signals.caught is None
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN


def test_ignored_ends_of_children_are_heard_of_for_the_time_being(loop: EventLoop) -> None:
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        with StopSignals(loop):
            assert signal.getsignal(signal.SIGCHLD) is signal.SIG_DFL
        assert signal.getsignal(signal.SIGCHLD) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGCHLD, before)


def test_off_the_main_thread_nothing_is_installed(loop: EventLoop, heard: list[int]) -> None:
    before = handlers()
    during: list[list[object]] = []

    def launch() -> None:
        with StopSignals(loop) as signals:
            during.append(handlers())
            signals.check()
            with signals.raising():
                pass

    thread = threading.Thread(target=launch)
    thread.start()
    thread.join()
    assert during == [before]


def test_a_signal_that_the_kernel_gives_to_another_thread_wakes_the_loop(
    loop: EventLoop, heard: list[int]
) -> None:
    came = threading.Event()
    other = threading.Thread(target=came.wait)
    other.start()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
    killer = threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGTERM))
    try:
        with StopSignals(loop) as signals:
            deadline = time.monotonic() + 30
            killer.start()
            loop.turn(deadline)
            assert time.monotonic() < deadline, "the signal did not wake it"
            with pytest.raises(SignalException):
                signals.check()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        came.set()
        other.join()
        killer.join()
    assert heard == []


def test_the_callers_descriptor_for_signals_is_put_back(loop: EventLoop) -> None:
    read, write = os.pipe2(os.O_NONBLOCK)
    before = signal.set_wakeup_fd(write)
    try:
        with StopSignals(loop):
            pass
        assert signal.set_wakeup_fd(before) == write
    finally:
        os.close(read)
        os.close(write)


def test_what_was_raised_may_be_dealt_with_later_and_is_not_lost(
    loop: EventLoop, heard: list[int]
) -> None:
    with StopSignals(loop) as signals:
        with pytest.raises(SignalException), signals.raising():
            os.kill(os.getpid(), signal.SIGTERM)
        signals.postpone()
        assert signals.caught is signal.SIGTERM
    assert heard == [signal.SIGTERM]  # nobody raised it again: it is the caller's


def test_a_closed_socket_ends_no_agent_whose_caller_has_the_default_for_broken_pipes(
    loop: EventLoop,
) -> None:
    before = signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    try:
        with StopSignals(loop) as signals:
            assert signal.getsignal(signal.SIGPIPE) is signal.SIG_IGN
            signals.restore_broken_pipe()  # as a copy of this process does for the user's code
            assert signal.getsignal(signal.SIGPIPE) is signal.SIG_DFL
        assert signal.getsignal(signal.SIGPIPE) is signal.SIG_DFL
    finally:
        signal.signal(signal.SIGPIPE, before)


def test_what_the_caller_does_about_broken_pipes_is_left_alone(
    loop: EventLoop, heard: list[int]
) -> None:
    before = signal.signal(signal.SIGPIPE, signal.getsignal(signal.SIGTERM))
    try:
        with StopSignals(loop) as signals:
            signals.restore_broken_pipe()
            os.kill(os.getpid(), signal.SIGPIPE)
    finally:
        signal.signal(signal.SIGPIPE, before)
    assert heard == [signal.SIGPIPE]
