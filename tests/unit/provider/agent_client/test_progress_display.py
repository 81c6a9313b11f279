"""Progress: a bar for a person, a line now and then for a log, and the last state in both."""

from __future__ import annotations

import io

import pytest

from airflow_provider.agent_client import progress_display
from airflow_provider.agent_client.progress_display import ProgressBar, ProgressLines, summary


@pytest.mark.parametrize(
    ("ranks", "line"),
    [
        ({0: (3, 10)}, "progress: rank 0 3/10 (30 %)"),
        ({1: (5, 0), 0: (4, 8)}, "progress: rank 0 4/8 (50 %), rank 1 5"),
        (
            {rank: (rank + 1, 10) for rank in range(8)},
            "progress of 8 ranks: slowest rank 0 1/10 (10 %), fastest rank 7 8/10 (80 %)",
        ),
    ],
)
def test_a_few_ranks_are_listed_and_many_are_summed_up(ranks, line):
    assert summary(ranks) == line


def test_lines_come_at_most_every_few_seconds_and_the_last_one_at_the_end():
    now, lines = 0.0, []
    display = ProgressLines(lines.append, every=5.0, clock=lambda: now)
    for step, now in [(1, 0.0), (2, 0.5), (3, 4.9), (4, 5.0), (5, 5.5)]:  # noqa: B007 - the clock reads it
        display.show({0: (step, 5)})
    assert [line.split()[3] for line in lines] == ["1/5", "4/5"]
    display.close()
    assert lines[-1] == "progress: rank 0 5/5 (100 %)"


def test_a_job_without_progress_leaves_no_line():
    lines = []
    ProgressLines(lines.append).close()
    ProgressBar(lines.append).close()
    assert lines == []


def test_the_last_line_is_not_written_twice():
    lines = []
    display = ProgressLines(lines.append)
    display.show({0: (1, 1)})
    display.show({0: (1, 1)})  # as an agent repeats it
    display.close()
    assert len(lines) == 1


class Terminal(io.StringIO):
    def isatty(self):
        return True


def open_terminal(monkeypatch):
    """In the test itself: pytest puts its own streams back between a fixture and its test."""
    screen = Terminal()
    monkeypatch.setattr("sys.stderr", screen)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "80")
    return screen


def test_the_bar_is_wiped_before_a_log_line_and_drawn_again_after_it(monkeypatch):
    terminal, lines = open_terminal(monkeypatch), []
    bar = ProgressBar(lines.append)
    bar.show({0: (3, 10), 1: (2, 10)})
    assert "rank 0" in terminal.getvalue()
    assert "3/10" in terminal.getvalue()
    bar.hide()
    wiped = terminal.getvalue()
    bar.hide()
    assert terminal.getvalue() == wiped
    terminal.write("a log line\n")
    logged = terminal.getvalue()
    bar.show({0: (10, 10)})
    # The first thing drawn is not a step back up, over the log line.
    assert terminal.getvalue()[len(logged) :].partition("rank 0")[0].count("\x1b[1A") == 0
    assert "2/10" in terminal.getvalue()[len(logged) :]
    bar.show({0: (10, 10), 1: (9, 10)})
    assert "10/10" in terminal.getvalue()[len(wiped) :]
    bar.close()
    assert lines == ["progress: rank 0 10/10 (100 %), rank 1 9/10 (90 %)"]
    assert terminal.getvalue().rindex("\x1b[?25h") > terminal.getvalue().rindex(
        "\x1b[?25l"
    )  # the cursor


def test_a_person_at_a_terminal_gets_a_bar_and_a_log_gets_lines(monkeypatch):
    import structlog

    open_terminal(monkeypatch)
    log = structlog.get_logger()
    assert isinstance(progress_display.display_for_this_process(log), ProgressBar)
    monkeypatch.setattr("sys.stderr", io.StringIO())
    assert isinstance(progress_display.display_for_this_process(log), ProgressLines)
