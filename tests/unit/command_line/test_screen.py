from __future__ import annotations

import io
import sys

import pytest

from llutil.command_line.screen import Cell, Screen


def test_a_pipe_gets_columns_that_line_up_and_numbers_on_the_right(
    capsys: pytest.CaptureFixture[str],
) -> None:
    Screen().table(("RUN", "STEP"), [["digits", "9"], [Cell("a", "red"), "120"], ["b", "-"]])
    assert capsys.readouterr().out == "RUN     STEP\ndigits     9\na        120\nb          -\n"


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_table_that_is_wider_than_the_terminal_keeps_all_its_columns(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Run ids of Airflow's are often as long as a line."""
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setattr(sys, "stdout", terminal := _Terminal())
    Screen().table(("RUN ID", "STATE"), [["r" * 80, Cell("runs", "green")], ["short", "-"]])
    header, long, short = terminal.getvalue().splitlines()
    assert header.startswith("\x1b[1mRUN ID")
    assert "STATE" in header
    assert f"{'r' * 80}  \x1b[32mruns" in long
    assert short.startswith("short" + " " * 77)


def test_nothing_is_shown_of_no_rows(capsys: pytest.CaptureFixture[str]) -> None:
    Screen().table(("RUN", "STEP"), [])
    Screen().facts([])
    assert not capsys.readouterr().out


def test_facts_line_up_and_empty_ones_are_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    Screen().facts([("run", "digits"), ("metrics", ""), ("node", Cell("0 of 1", "green"))])
    assert capsys.readouterr().out == "run   digits\nnode  0 of 1\n"


def test_a_text_stays_on_its_line_and_moves_no_cursor(capsys: pytest.CaptureFixture[str]) -> None:
    screen = Screen()
    screen.facts([("why", "good\nenough\x1b[2J")])
    screen.table(("WHY",), [["a\rb"]])
    screen.line("c\x07")
    assert capsys.readouterr().out == ("why  good\\x0aenough\\x1b[2J\nWHY\na\\x0db\nc\\x07\n")
