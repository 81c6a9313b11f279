"""Sleeping on a word: what wakes a sleeper, what does not, and the way without futex."""

from __future__ import annotations

import mmap
import platform
import signal
import threading
import time
from collections.abc import Iterator

import pytest

from llutil.events import futex

NEVER = 30.0
SHORT = 0.02


@pytest.fixture(params=["native", "polling"])
def word(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[memoryview]:
    """A shared word, on this machine and on one for which we know no system call."""
    if request.param == "polling":
        monkeypatch.setattr(platform, "machine", lambda: "riscv64")
    futex._system_call.cache_clear()
    assert (futex._system_call() is None) == (request.param == "polling")
    with (
        mmap.mmap(-1, 4096) as mapping,
        memoryview(mapping) as whole,
        whole.cast("I") as words,
        words[3:4] as one,
    ):
        yield one
    futex._system_call.cache_clear()


def test_it_keeps_to_its_deadline(word: memoryview) -> None:
    begun = time.monotonic()
    assert not futex.wait(word, 0, begun + SHORT)
    assert begun + SHORT <= time.monotonic() < begun + NEVER


def test_a_word_that_differs_already_is_not_waited_for(word: memoryview) -> None:
    word[0] = 7
    assert futex.wait(word, 0, float("inf"))


def test_waking_without_a_change_wakes_nobody_for_good(word: memoryview) -> None:
    stop = threading.Event()

    def nag() -> None:
        while not stop.is_set():
            futex.wake(word)

    nagger = threading.Thread(target=nag)
    nagger.start()
    try:
        begun = time.monotonic()
        assert not futex.wait(word, 0, begun + SHORT)
        assert time.monotonic() >= begun + SHORT
    finally:
        stop.set()
        nagger.join()


def test_a_change_wakes_every_sleeper(word: memoryview) -> None:
    answers: list[bool] = []
    deadline = time.monotonic() + NEVER
    sleepers = [
        threading.Thread(target=lambda: answers.append(futex.wait(word, 0, deadline)))
        for _ in range(4)
    ]
    for sleeper in sleepers:
        sleeper.start()
    word[0] = 1
    futex.wake(word)
    for sleeper in sleepers:
        sleeper.join()
    assert answers == [True] * 4
    assert time.monotonic() < deadline


def test_a_signal_runs_its_handler_and_the_sleep_goes_on(word: memoryview) -> None:
    heard: list[int] = []

    def hear(number: int, _: object) -> None:
        heard.append(number)
        if len(heard) == 2:
            word[0] = 1  # which wakes nobody

    before = signal.signal(signal.SIGALRM, hear)
    try:
        signal.setitimer(signal.ITIMER_REAL, SHORT / 4, SHORT / 4)
        assert futex.wait(word, 0, time.monotonic() + NEVER)
        assert len(heard) >= 2
        begun = time.monotonic()
        assert not futex.wait(word, 1, begun + 2 * SHORT)
        assert time.monotonic() >= begun + 2 * SHORT
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def test_a_handler_that_raises_ends_the_sleep(word: memoryview) -> None:
    class Hurry(Exception):
        pass

    def raise_it(*_: object) -> None:
        raise Hurry

    def sleep() -> None:
        signal.setitimer(signal.ITIMER_REAL, SHORT / 2)
        futex.wait(word, 0, time.monotonic() + NEVER)

    before = signal.signal(signal.SIGALRM, raise_it)
    try:
        with pytest.raises(Hurry):
            sleep()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def test_an_infinite_deadline_is_a_deadline_that_does_not_come(word: memoryview) -> None:
    answers: list[bool] = []
    sleeper = threading.Thread(target=lambda: answers.append(futex.wait(word, 0, float("inf"))))
    sleeper.start()
    word[0] = 1
    futex.wake(word)
    sleeper.join(NEVER)
    assert answers == [True]
