"""What ranks print, and how far they are, is shown where somebody can read it; a job does not end
where nobody can.
"""

from __future__ import annotations

import os
import sys
import weakref
from collections.abc import Callable
from contextlib import suppress
from typing import TextIO

import pytest

from llutil.agent.observer import TerminalObserver
from llutil.progress.display import on_stderr


def _closed() -> TextIO:
    stream = os.fdopen(os.open(os.devnull, os.O_WRONLY), "w")
    stream.close()
    return stream


def _full() -> TextIO:
    return os.fdopen(os.open("/dev/full", os.O_WRONLY), "w")


def _without_reader() -> TextIO:
    read, write = os.pipe()
    os.close(read)
    return os.fdopen(write, "w")


def _slow() -> TextIO:
    """A pipe that is full, and that does not let its writers wait."""
    read, write = os.pipe()
    os.set_blocking(write, False)
    with suppress(BlockingIOError):
        while True:
            os.write(write, bytes(1 << 12))
    stream = os.fdopen(write, "w")
    weakref.finalize(stream, os.close, read)
    return stream


@pytest.mark.parametrize("make", [lambda: None, _closed, _full, _without_reader, _slow])
def test_a_stream_that_takes_nothing_ends_no_job(
    make: Callable[[], TextIO | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = make()
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", stream)
        patch.setattr(sys, "stderr", stream)
        observer = TerminalObserver(on_stderr())
        for _ in range(2):
            observer.output_lines(0, "[0]:", "stdout", ["a line", "another"])
            observer.output_lines(0, "[0]:", "stderr", ["a line"])
        observer.round(0, 1, (0,))
        observer.progress({0: (1, 2)}, {"loss": 0.5})
        observer.progress({0: (2, 2)}, {})
        observer.round(0, 0, ())
    if stream is not None and not stream.closed:
        with pytest.raises(OSError, match=r"Broken pipe|No space left|could not complete"):
            stream.close()


def test_lines_are_shown_behind_their_prefix(capsys: pytest.CaptureFixture[str]) -> None:
    observer = TerminalObserver()
    observer.output_lines(0, "[0]:", "stdout", ["a line", "another"])
    observer.output_lines(1, "[1]:", "stderr", ["a third"])
    assert capsys.readouterr() == ("[0]:a line\n[0]:another\n", "[1]:a third\n")
