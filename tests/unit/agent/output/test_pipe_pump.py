"""What a rank prints reaches whoever takes its lines, however fast it comes."""

from __future__ import annotations

import itertools
import logging
import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from llutil.agent.event_loop import EventLoop
from llutil.agent.output import pipe_pump
from llutil.agent.output.pipe_pump import PipePump, Stream

FAR = 60.0  # seconds; a test that waits so long has failed


class Reader:
    """An observer that takes lines while ``slow`` is false."""

    def __init__(self, *, leaves_out: bool) -> None:
        self.leaves_out = leaves_out
        self.slow = False
        self.waiting: list[Callable[[], None]] = []

    def congested(self) -> bool:
        return self.slow

    def when_not_congested(self, resume: Callable[[], None]) -> None:
        self.waiting.append(resume)

    def is_ready(self) -> None:
        self.slow = False
        while self.waiting:
            self.waiting.pop()()


class Pumped:
    """A rank's pipe and what came out of it: lines, and the log's own words among them."""

    def __init__(
        self,
        file: Path | None,
        *,
        leaves_out: bool,
        shown: bool = True,
        complete: bool = False,
    ) -> None:
        self.reader = Reader(leaves_out=leaves_out)
        self.lines: list[str] = []
        self.loop = EventLoop()
        self._stack = ExitStack()
        self.pipe, self.rank = os.pipe()
        os.set_blocking(self.rank, False)
        stream = Stream(
            name="stdout of rank 3",
            file=file,
            raw=False,
            at_once=False,
            shown=shown,
            complete=complete,
        )
        PipePump(self.pipe, stream, self._take, self.loop, cast("Any", self.reader), self._stack)

    def _take(self, lines: Any) -> None:
        self.lines += lines

    def prints(self, data: bytes) -> int:
        """The rank prints, and waits where it has to; so many bytes got through."""
        left = memoryview(data)
        while left:
            try:
                left = left[os.write(self.rank, left) :]
            except BlockingIOError:
                self.loop.turn(time.monotonic())
                if self.pipe not in self.loop.fds():
                    break  # nobody reads
        return len(data) - len(left)

    def until(self, done: Callable[[], bool]) -> None:
        assert self.loop.until(done, time.monotonic() + FAR)

    def ends(self) -> None:
        os.close(self.rank)
        self._stack.close()
        self.loop.close()


@pytest.fixture
def pumped(
    request: pytest.FixtureRequest, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> Iterator[Pumped]:
    given = dict(request.param)
    file = tmp_path / "stdout.log" if given.pop("has_file", False) else None
    found = Pumped(file, **given)
    with caplog.at_level(logging.WARNING, "llutil"):
        handler = logging.Handler()
        handler.emit = lambda record: found.lines.append(f"!{record.getMessage()}")  # type: ignore[method-assign]
        logging.getLogger("llutil").addHandler(handler)
        yield found
        logging.getLogger("llutil").removeHandler(handler)


def numbered(numbers: range) -> bytes:
    return b"".join(b"line %d\n" % number for number in numbers)


@pytest.mark.parametrize("pumped", [{"leaves_out": True}], indirect=True)
def test_lines_that_come_one_after_the_other_are_all_taken(pumped: Pumped) -> None:
    for number in range(5):
        pumped.prints(b"%d\n" % number)
        pumped.loop.turn(time.monotonic())
    pumped.until(lambda: len(pumped.lines) == 5)
    pumped.ends()
    assert pumped.lines == ["0", "1", "2", "3", "4"]


@pytest.mark.parametrize(
    "pumped", [{"leaves_out": True, "has_file": True}, {"leaves_out": True}], indirect=True
)
def test_a_rank_does_not_wait_for_a_slow_reader_and_what_is_left_out_is_counted_in_its_place(
    pumped: Pumped, tmp_path: Path
) -> None:
    pumped.prints(b"first\nbeg")
    pumped.until(lambda: pumped.lines == ["first"])
    pumped.reader.slow = True
    wanted = b"un\n" + numbered(range(200_000))
    assert pumped.prints(wanted) == len(wanted)
    assert pumped.lines == ["first"]
    pumped.reader.is_ready()
    pumped.until(lambda: pumped.lines[-1] == "line 199999")
    pumped.prints(b"later\n")
    pumped.ends()
    _, told, *kept = pumped.lines
    said, _, where = told.partition(
        " of stdout of rank 3 left out here, as they come faster than the log takes them; "
    )
    whole = ["begun", *numbered(range(200_000)).decode().splitlines(), "later"]
    count = int(said.removeprefix("!").partition(" ")[0].replace(",", ""))
    assert count > 150_000
    assert kept == whole[count:], "what was left out is what is missing"
    file = tmp_path / "stdout.log"
    assert where == (f"see {file}" if file.exists() else "no file has them (tee, log_lines)")
    if file.exists():
        assert file.read_text().splitlines() == ["first", *whole]


@pytest.mark.parametrize("pumped", [{"leaves_out": True}], indirect=True)
def test_the_last_lines_before_the_end_are_never_left_out(pumped: Pumped) -> None:
    pumped.reader.slow = True
    pumped.prints(numbered(range(200_000)) + b"the last words")
    pumped.ends()
    assert pumped.lines[0].endswith("no file has them (tee, log_lines)")
    assert pumped.lines[-1] == "the last words"
    assert len(pumped.lines) > 10_000


@pytest.mark.parametrize("pumped", [{"leaves_out": True}], indirect=True)
def test_little_that_comes_while_the_reader_is_slow_is_late_and_complete(pumped: Pumped) -> None:
    pumped.reader.slow = True
    pumped.prints(numbered(range(100)))
    pumped.until(lambda: bool(pumped.reader.waiting))
    pumped.reader.is_ready()
    pumped.until(lambda: len(pumped.lines) == 100)
    pumped.ends()
    assert pumped.lines == numbered(range(100)).decode().splitlines()


@pytest.mark.parametrize("pumped", [{"leaves_out": True}], indirect=True)
def test_a_rank_does_not_wait_for_output_that_takes_long_to_show(
    pumped: Pumped, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = itertools.count(step=10)  # seconds of this thread, at each look
    clock = SimpleNamespace(monotonic=time.monotonic, thread_time=lambda: float(next(work)))
    monkeypatch.setattr(pipe_pump, "time", clock)
    wanted = numbered(range(200_000))
    assert pumped.prints(wanted) == len(wanted)
    assert pumped.lines[0] == "line 0", "the first read is shown"
    pumped.ends()
    (told,) = [line for line in pumped.lines if line.startswith("!")]
    left_out = int(told.removeprefix("!").partition(" ")[0].replace(",", ""))
    assert left_out + len(pumped.lines) - 1 == 200_000
    assert pumped.lines[-1] == "line 199999"


@pytest.mark.parametrize("pumped", [{"leaves_out": True}], indirect=True)
def test_of_a_line_of_100_mb_without_an_end_a_part_is_left_out(pumped: Pumped) -> None:
    pumped.reader.slow = True
    pumped.prints(b"x" * 100_000_000)
    pumped.ends()
    told, *kept = pumped.lines
    size = int(told.removeprefix("!").partition(" bytes of one line of stdout")[0].replace(",", ""))
    assert size + sum(map(len, kept)) == 100_000_000
    assert len(kept) <= 8


@pytest.mark.parametrize(
    "pumped",
    [{"leaves_out": False}, {"leaves_out": True, "complete": True}],
    indirect=True,
)
def test_a_rank_waits_where_no_line_may_be_left_out(pumped: Pumped) -> None:
    pumped.reader.slow = True
    wanted = numbered(range(200_000))
    sent = pumped.prints(wanted)
    assert sent < len(wanted)
    pumped.reader.is_ready()
    assert pumped.prints(wanted[sent:]) == len(wanted) - sent
    pumped.ends()
    assert pumped.lines == wanted.decode().splitlines()


@pytest.mark.parametrize(
    "pumped",
    [{"leaves_out": leaves_out, "shown": False, "has_file": True} for leaves_out in (True, False)],
    indirect=True,
)
def test_what_goes_into_a_file_alone_waits_for_nobody_and_its_last_lines_are_kept(
    pumped: Pumped, tmp_path: Path
) -> None:
    pumped.reader.slow = True
    wanted = numbered(range(200_000))
    assert pumped.prints(wanted) == len(wanted)
    pumped.ends()
    assert (tmp_path / "stdout.log").read_bytes() == wanted
    assert pumped.lines[-100:] == wanted.decode().splitlines()[-100:]
    assert len(pumped.lines) < 10_000


def test_a_pipe_that_is_called_readable_and_is_not_is_read_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Else the rank would wait in its print once its pipe is full."""
    rank = Pumped(None, leaves_out=False)
    pipe = rank.pipe
    reads = iter([BlockingIOError()])
    read = os.read

    def fails_once(fd: int, size: int) -> bytes:
        if fd == pipe and (error := next(reads, None)) is not None:
            raise error
        return read(fd, size)

    monkeypatch.setattr(os, "read", fails_once)
    os.write(rank.rank, b"hello\n")
    rank.loop.turn(time.monotonic() + FAR)
    assert pipe in rank.loop.fds()
    rank.until(lambda: len(rank.lines) == 1)
    rank.ends()
