"""The bottom line of a terminal: it shows progress, and is never in the way of what ranks print."""

from __future__ import annotations

import fcntl
import os
import struct
import sys
import termios
import tty
from collections.abc import Iterator

import pytest

from llutil.progress.display import SWITCH, display_for_this_process, on_stderr
from llutil.progress.log_lines import ProgressLines
from llutil.progress.terminal_line import TerminalLine
from tests.support.terminal_screen import Screen


class Terminal:
    """A terminal of 60 columns and 6 lines, and what is seen on it."""

    def __init__(self) -> None:
        self.ours, self.fd = os.openpty()
        tty.setraw(self.fd)  # what is written is seen as it is, but for what `screen` adds
        self.resize(60, 6)
        self.screen = Screen(60, 6)
        self.now = 0.0
        self.lines: list[str] = []
        self.line = TerminalLine(self.fd, self.lines.append, lambda: self.now)

    def resize(self, columns: int, lines: int) -> None:
        fcntl.ioctl(self.fd, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def show(self, now: float, step: int, total: int = 100, **metrics: float) -> None:
        self.now = now
        self.line.show({0: (step, total)}, metrics)

    def print(self, text: str) -> None:
        os.write(self.fd, text.replace("\n", "\r\n").encode())

    def seen(self) -> list[str]:
        os.write(self.fd, b"\0")  # the kernel hands on what was written a moment later
        text = b""
        while not text.endswith(b"\0"):
            text += os.read(self.ours, 1 << 16)
        self.screen.feed(text[:-1].decode())
        return self.screen.rows


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[Terminal]:
    monkeypatch.setenv("TERM", "xterm")
    terminal = Terminal()
    yield terminal
    os.close(terminal.fd)
    os.close(terminal.ours)


def test_what_ranks_print_scrolls_above_the_line(terminal: Terminal) -> None:
    terminal.print("begin\nname? ")
    terminal.show(0.0, 10)
    terminal.print("Ada\n")
    assert terminal.seen() == ["begin", "name? Ada", "", "", "", "progress: rank 0 10/100 (10 %)"]
    for number in range(5):
        terminal.print(f"line {number}\n")
    terminal.show(4.0, 20, loss=0.25)
    assert terminal.seen() == [
        "line 1",
        "line 2",
        "line 3",
        "line 4",
        "",
        "progress: rank 0 20/100 (20 %); 2.5 steps/s, 32 s left; los",
    ]
    terminal.line.hide()
    terminal.print("(Pdb) ")
    assert terminal.seen()[-2:] == ["(Pdb)", ""]
    assert terminal.screen.scrolls_whole


def test_the_cursor_in_the_bottom_line_moves_up_with_what_is_there(terminal: Terminal) -> None:
    terminal.print("".join(f"line {number}\n" for number in range(5)) + "half a li")
    terminal.show(0.0, 10)
    terminal.print("ne\n")
    rows = terminal.seen()
    assert rows[-3:] == ["half a line", "", "progress: rank 0 10/100 (10 %)"]


def test_at_the_end_the_terminal_is_whole_and_the_last_state_is_a_line(terminal: Terminal) -> None:
    terminal.show(0.0, 99)
    terminal.show(0.5, 100)
    terminal.line.close()
    terminal.line.close()
    assert terminal.seen() == [""] * 6
    assert terminal.screen.scrolls_whole
    assert terminal.lines == ["progress: rank 0 100/100 (100 %)"]


def test_a_terminal_that_changes_its_size_gets_the_line_at_its_new_bottom(
    terminal: Terminal,
) -> None:
    terminal.show(0.0, 10)
    terminal.resize(60, 5)
    terminal.show(0.5, 10)
    terminal.resize(60, 2)
    terminal.show(1.0, 10)
    rows = terminal.seen()
    assert [row for row in rows if row] == ["progress: rank 0 10/100 (10 %)"]
    assert rows[4]


def test_a_paused_terminal_does_not_block_and_odd_names_do_not_move_the_cursor(
    terminal: Terminal,
) -> None:
    termios.tcflow(terminal.fd, termios.TCOOFF)
    terminal.show(0.0, 10)
    termios.tcflow(terminal.fd, termios.TCOON)
    assert terminal.seen() == [""] * 6
    terminal.line.show({0: (1, 0)}, {"a\x1b[2Jé": 1.0})
    assert terminal.seen()[-1] == "progress: rank 0 1; a?[2J? 1"


def test_a_person_gets_a_line_a_pipe_gets_lines_and_a_switch_turns_both_off(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(SWITCH, raising=False)
    with os.fdopen(os.dup(terminal.fd), "w") as stderr:
        monkeypatch.setattr(sys, "stderr", stderr)
        assert isinstance(on_stderr(), TerminalLine)
        monkeypatch.setenv("TERM", "dumb")
        assert isinstance(on_stderr(), ProgressLines)
        monkeypatch.setenv("TERM", "xterm")
        terminal.resize(0, 0)
        assert isinstance(on_stderr(), ProgressLines)
        monkeypatch.setenv(SWITCH, "off")
        assert on_stderr() is None
    assert isinstance(display_for_this_process(print), ProgressLines), "it is closed"
    monkeypatch.setattr(sys, "stderr", None)
    assert isinstance(display_for_this_process(print), ProgressLines)
