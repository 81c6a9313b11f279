"""Stacks are read from what faulthandler and py-spy write."""

from __future__ import annotations

import faulthandler
import threading
from pathlib import Path

from llutil.agent.hang.stack_text import Frame, Stack, of_faulthandler, of_py_spy, written

SPIED = """Process 7: python train.py
Python v3.11.7 (/usr/bin/python3.11)

Thread 9 (idle): "pin memory"
    wait (threading.py:327)
Thread 7 (active+gil): "MainThread"
    acquire (/home/user/with (brackets).py:7)
    <module> (<string>)
"""


def test_the_main_thread_is_first_in_a_dump_of_this_process(tmp_path: Path) -> None:
    ready, end = threading.Event(), threading.Event()

    def other() -> None:
        ready.set()
        end.wait()

    thread = threading.Thread(target=other)
    thread.start()
    ready.wait()
    try:
        with (tmp_path / "dump").open("w+") as file:
            faulthandler.dump_traceback(file, all_threads=True)
            file.seek(0)
            stack = of_faulthandler(file.read())
    finally:
        end.set()
        thread.join()
    assert stack is not None
    assert (stack.main[0].file, stack.main[0].function) == (
        __file__,
        "test_the_main_thread_is_first_in_a_dump_of_this_process",
    )
    assert stack.main[0].line > 0
    assert any(frame.function == "other" for frames in stack.threads[1:] for frame in frames)


def test_the_main_thread_is_first_in_what_py_spy_prints() -> None:
    assert of_py_spy(SPIED) == Stack(
        (
            (
                Frame("/home/user/with (brackets).py", 7, "acquire"),
                Frame("<string>", 0, "<module>"),
            ),
            (Frame("threading.py", 327, "wait"),),
        )
    )


def test_what_shows_no_thread_is_no_stack() -> None:
    for text in ("", "Error: Permission denied", "Current thread 0x7 (most recent call first):\n"):
        assert of_faulthandler(text) is None
        assert of_py_spy(text) is None


def test_a_stack_is_written_without_the_launchers_calls_and_not_at_any_length() -> None:
    user = [Frame("/home/user/train.py", line, "deep") for line in range(1, 4)]
    ours = Frame("/v/llutil/agent/worker_side/worker_main.py", 74, "run_order")
    lines = written([[*user, ours, Frame("<string>", 0, "<module>")]], 2)
    assert lines == [
        '  File "/home/user/train.py", line 1, in deep',
        '  File "/home/user/train.py", line 2, in deep',
        "  ... 1 outer calls left out ...",
    ]
    assert written([[ours], [ours]], 2)[1:2] == ["  another thread:"]
