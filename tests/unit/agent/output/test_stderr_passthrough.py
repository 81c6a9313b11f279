"""What ranks print on standard error goes on to the agent's own, which may be slow, closed, or a
file.
"""

from __future__ import annotations

import os
import select
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from llutil.agent.event_loop import EventLoop
from llutil.agent.output import stderr_passthrough
from llutil.agent.output.stderr_passthrough import StderrPassthrough
from tests.support.forks import in_a_fork

FAR = 60.0  # seconds; a test that waits so long has failed


@pytest.fixture
def loop() -> Iterator[EventLoop]:
    with EventLoop() as loop:
        yield loop


@pytest.fixture
def reader(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """The other end of a standard error that is a pipe."""
    read, write = os.pipe()
    monkeypatch.setattr(stderr_passthrough, "_STDERR", write)
    os.set_blocking(read, False)
    yield read
    os.close(read)
    os.close(write)


def taken(reader: int) -> bytes:
    try:
        return os.read(reader, 1 << 20)
    except BlockingIOError:
        return b""


@pytest.mark.parametrize(
    ("given", "shown", "last"),
    [
        ([b"one\ntwo\n"], b"one\ntwo\n", b""),
        ([b"one", b" more\nand"], b"one more\n", b"and"),
        ([b"\r10%", b"\r20%"], b"\r10%\r20%", b""),
        ([b"and ", b"\r10%"], b"and \r10%", b""),
        ([b"x" * 5000, b"y"], b"x" * 5000, b"y"),
    ],
    ids=["lines", "half a line", "a bar", "a bar after half a line", "a very long line"],
)
def test_lines_are_shown_when_they_are_whole_and_bars_at_once(
    loop: EventLoop, reader: int, given: list[bytes], shown: bytes, last: bytes
) -> None:
    one = StderrPassthrough(loop, lambda: None)
    for data in given:
        one.feed(data)
    assert taken(reader) == shown
    one.close()
    assert taken(reader) == last
    assert not one.behind


def test_a_reader_that_does_not_read_makes_nobody_wait_and_loses_nothing(
    loop: EventLoop, reader: int
) -> None:
    drained: list[bool] = []
    one = StderrPassthrough(loop, lambda: drained.append(True))
    lines = b"".join(b"%d %s\n" % (number, b"x" * 90) for number in range(3000))
    one.feed(lines)
    assert one.behind
    found = b""
    deadline = time.monotonic() + FAR
    while one.behind and time.monotonic() < deadline:
        assert not drained
        found += taken(reader)
        loop.turn(deadline)
    found += taken(reader)
    assert found == lines
    assert drained == [True]
    one.feed(b"more\n")
    assert taken(reader) == b"more\n"
    one.close()


def test_the_end_does_not_wait_for_a_reader_for_long(
    loop: EventLoop, reader: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stderr_passthrough, "_CLOSE_TIMEOUT", 0.01)
    one = StderrPassthrough(loop, lambda: None)
    one.feed(b"x" * 200_000 + b"\n")
    began = time.monotonic()
    one.close()
    assert time.monotonic() - began < FAR


def test_the_end_does_not_wait_long_for_a_slow_reader(
    loop: EventLoop, reader: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = StderrPassthrough(loop, lambda: None)
    one.feed(b"x" * 400_000 + b"\n")
    now = 0.0

    class SlowPoll:
        """Half a second passes before the reader takes a little."""

        def register(self, *_: int) -> None:
            pass

        def poll(self, patience: float) -> bool:
            nonlocal now
            assert patience >= 0
            now += 0.5
            return bool(os.read(reader, 4096))

    poll = SimpleNamespace(poll=SlowPoll, POLLOUT=select.POLLOUT)
    monkeypatch.setattr(stderr_passthrough, "select", poll)
    monkeypatch.setattr(stderr_passthrough, "time", SimpleNamespace(monotonic=lambda: now))
    one.close()
    assert now <= 1.5


def test_a_reader_that_has_gone_ends_nothing(loop: EventLoop, reader: int) -> None:
    one = StderrPassthrough(loop, lambda: None)
    elsewhere = os.open(os.devnull, os.O_RDONLY)
    os.dup2(elsewhere, reader)
    os.close(elsewhere)
    one.feed(b"hello?\n")
    assert not one.behind
    one.close()


@in_a_fork
def test_a_standard_error_that_is_closed_ends_nothing(
    loop: EventLoop, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, write = os.pipe()
    os.close(read)
    os.close(write)
    monkeypatch.setattr(stderr_passthrough, "_STDERR", write)
    one = StderrPassthrough(loop, lambda: None)
    one.feed(b"hello?\n")
    one.close()
    assert not one.behind


def test_a_file_takes_everything(
    loop: EventLoop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (tmp_path / "stderr").open("wb") as file:
        monkeypatch.setattr(stderr_passthrough, "_STDERR", file.fileno())
        one = StderrPassthrough(loop, lambda: None)
        one.feed(b"x" * 200_000 + b"\nend")
        one.close()
    assert (tmp_path / "stderr").read_bytes() == b"x" * 200_000 + b"\nend"
