"""The agent's loop: who is called, when it returns, and what it leaves."""

from __future__ import annotations

import functools
import os
import signal
import threading
import time
from collections.abc import Iterator

import pytest

from llutil.agent.event_loop import EventLoop

FAR = 60.0  # seconds; a test that waits so long has failed


@pytest.fixture
def loop() -> Iterator[EventLoop]:
    with EventLoop() as loop:
        yield loop


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    read, write = os.pipe()
    yield read, write
    os.close(read)
    os.close(write)


def far() -> float:
    return time.monotonic() + FAR


def test_a_ready_descriptor_is_called_for_in_every_turn_until_it_is_unwatched(
    loop: EventLoop, pipe: tuple[int, int]
) -> None:
    calls = []
    loop.watch(pipe[0], lambda: calls.append("ready"))
    os.write(pipe[1], b"x")
    loop.turn(far())
    loop.turn(far())
    loop.unwatch(pipe[0])
    loop.unwatch(pipe[0])  # and once more, which does nothing
    loop.turn(time.monotonic())
    assert calls == ["ready", "ready"]


def test_a_paused_descriptor_is_not_looked_at_for_so_long_and_then_again(
    loop: EventLoop, pipe: tuple[int, int]
) -> None:
    calls = []
    loop.watch(pipe[0], lambda: calls.append(time.monotonic()))
    os.write(pipe[1], b"x")
    loop.pause(pipe[0], far())
    assert pipe[0] in loop.fds(), "a forked child closes it"
    loop.turn(time.monotonic())
    assert not calls
    loop.unwatch(pipe[0])
    loop.watch(pipe[0], lambda: calls.append(time.monotonic()))
    until = time.monotonic() + 0.02
    loop.pause(pipe[0], until)
    assert loop.until(lambda: bool(calls), far())
    assert calls[0] >= until
    loop.pause(pipe[0], 0.0)
    loop.unwatch(pipe[0])
    calls.clear()
    loop.turn(time.monotonic())
    assert not calls, "whoever unwatches it in its pause is not called for it"


def test_what_is_called_later_is_called_once_and_not_before(loop: EventLoop) -> None:
    calls: list[str] = []
    loop.call_later(time.monotonic() + 3600, lambda: calls.append("far"))
    loop.turn(time.monotonic())
    assert not calls
    when = time.monotonic() + 0.02
    loop.call_later(when, lambda: calls.append("soon"))
    assert loop.until(lambda: bool(calls), far())
    assert time.monotonic() >= when
    loop.turn(time.monotonic())
    assert calls == ["soon"]


def test_a_wake_up_ends_a_turn(loop: EventLoop) -> None:
    started = time.monotonic()
    loop.wake()
    loop.turn(far())
    assert time.monotonic() - started < FAR / 2


def test_a_wake_up_comes_from_another_thread_too(loop: EventLoop) -> None:
    called = threading.Event()
    thread = threading.Thread(target=lambda: loop.call_soon(called.set))
    thread.start()
    assert loop.until(called.is_set, far())
    thread.join()


def test_a_million_wake_ups_are_one(loop: EventLoop) -> None:
    for _ in range(100_000):
        loop.wake()  # more than a pipe holds
    turns = 0
    while loop.until(lambda: False, time.monotonic()) or turns < 100:
        turns += 1
        loop.turn(time.monotonic())
    started = time.monotonic()
    loop.turn(started + 0.01)
    assert time.monotonic() - started >= 0.01, "something still wakes it"


def test_what_is_called_soon_is_called_once_in_order_and_on_the_loops_thread(
    loop: EventLoop,
) -> None:
    calls: list[tuple[int, threading.Thread]] = []

    def call(number: int) -> None:
        calls.append((number, threading.current_thread()))

    for number in range(3):
        loop.call_soon(functools.partial(call, number))
    loop.turn(far())
    loop.turn(time.monotonic())
    assert calls == [(number, threading.current_thread()) for number in range(3)]


def test_who_is_called_soon_may_ask_for_more_and_is_not_waited_with(loop: EventLoop) -> None:
    done = threading.Event()
    loop.call_soon(lambda: loop.call_soon(done.set))
    assert loop.until(done.is_set, far())


def test_a_callback_may_unwatch_another_that_is_ready_in_the_same_turn(loop: EventLoop) -> None:
    pipes = [os.pipe() for _ in range(2)]
    calls: list[int] = []

    def called(mine: int, other: int) -> None:
        calls.append(mine)
        loop.unwatch(other)

    (first, _), (second, _) = pipes
    loop.watch(first, lambda: called(first, second))
    loop.watch(second, lambda: called(second, first))
    for _, write in pipes:
        os.write(write, b"x")
    loop.turn(far())
    assert len(calls) == 1
    for fds in pipes:
        for fd in fds:
            os.close(fd)


def test_a_number_that_was_used_again_in_the_same_turn_is_not_taken_for_the_old_one(
    loop: EventLoop,
) -> None:
    """One callback closes what another one waits for, and opens something that gets the same
    number.
    """
    (first, first_end), (second, second_end) = os.pipe(), os.pipe()
    calls: list[str] = []
    opened: list[int] = []

    def replace(other: int) -> None:
        loop.unwatch(first)
        loop.unwatch(second)
        os.close(other)
        opened.extend(os.pipe())
        loop.watch(opened[0], lambda: calls.append("of the new one"))

    loop.watch(first, lambda: replace(second))
    loop.watch(second, lambda: replace(first))
    for end in (first_end, second_end):
        os.write(end, b"x")
    loop.turn(far())
    assert calls == []
    for fd in {first, first_end, second, second_end, *opened}:
        try:
            os.close(fd)
        except OSError:
            continue  # it was the one that was closed


def test_a_turn_ends_at_its_deadline(loop: EventLoop) -> None:
    started = time.monotonic()
    loop.turn(started + 0.02)
    assert 0.02 <= time.monotonic() - started < FAR / 2


@pytest.mark.parametrize("deadline", [float("-inf"), 0.0])
def test_a_deadline_in_the_past_does_not_wait(loop: EventLoop, deadline: float) -> None:
    started = time.monotonic()
    loop.turn(deadline)
    assert time.monotonic() - started < FAR / 2


@pytest.mark.parametrize("deadline", [float("inf"), 1e300, 1e10])
def test_a_deadline_beyond_what_the_kernel_can_wait_is_no_error(
    loop: EventLoop, deadline: float
) -> None:
    loop.wake()
    loop.turn(deadline)


def test_until_says_whether_it_was_done(loop: EventLoop) -> None:
    assert loop.until(lambda: True, float("-inf"))
    assert not loop.until(lambda: False, time.monotonic() + 0.01)


def test_a_signal_wakes_the_loop_by_its_descriptor_and_its_handler_may_do_so_too(
    loop: EventLoop,
) -> None:
    """The handler alone cannot: it does not run if the signal comes just before the kernel's
    wait.
    """
    heard: list[int] = []

    def handle(number: int, _frame: object) -> None:
        heard.append(number)
        loop.wake()

    before = signal.signal(signal.SIGUSR1, handle)
    fd_before = signal.set_wakeup_fd(loop.wake_fd)
    timer = threading.Timer(0.02, os.kill, (os.getpid(), signal.SIGUSR1))
    timer.start()
    try:
        assert loop.until(lambda: bool(heard), far())
    finally:
        timer.join()
        signal.set_wakeup_fd(fd_before)
        signal.signal(signal.SIGUSR1, before)


def test_what_the_loop_owns_is_given_back_and_what_it_watched_is_not(pipe: tuple[int, int]) -> None:
    with EventLoop() as loop:
        loop.watch(pipe[0], lambda: None)
        fds = loop.fds()
        assert pipe[0] in fds
        assert (
            len(fds) == 4
        )  # the wake-up pipe's two ends, the selector, and the one that is watched
    os.fstat(pipe[0])
    for fd in fds - {pipe[0]}:
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(fd)


def test_who_wakes_a_closed_loop_harms_nobody() -> None:
    """The task may have caught up with a worker's output after the job has ended."""
    with EventLoop() as loop:
        fds = loop.fds()
    others = [os.pipe() for _ in range(len(fds))]  # which get the numbers that the loop had
    loop.call_soon(lambda: None)
    loop.wake()
    for read, write in others:
        os.set_blocking(read, False)
        with pytest.raises(BlockingIOError):
            os.read(read, 1)
        os.close(read)
        os.close(write)


def test_what_is_repeated_is_called_while_somebody_waits_until_it_is_forgotten(
    loop: EventLoop,
) -> None:
    calls: list[float] = []
    began = time.monotonic()
    loop.repeat(0.01, lambda: calls.append(time.monotonic()))
    assert loop.until(lambda: len(calls) == 3, far())
    assert calls[2] - began >= 0.03
    loop.repeat_no_more()
    loop.turn(time.monotonic() + 0.05)
    assert len(calls) == 3
