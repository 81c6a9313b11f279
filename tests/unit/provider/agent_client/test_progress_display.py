"""Progress: a bar for a person, a line now and then for a log, and the last state in both."""

from __future__ import annotations

import io
from itertools import pairwise

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


class Job:
    """Progress that is shown at times of the test's own."""

    def __init__(self):
        self.now, self.lines = 0.0, []
        self.display = ProgressLines(self.lines.append, clock=lambda: self.now)

    def show(self, now, *steps, total=0):
        self.now = now
        self.display.show({rank: (step, total) for rank, step in enumerate(steps)})


def test_lines_come_at_most_every_few_seconds_and_the_last_one_at_the_end():
    job = Job()
    for step, now in [(1, 0.0), (2, 0.5), (3, 4.9), (4, 5.0), (5, 5.5)]:
        job.show(now, step, total=5)
    assert [line.split()[3] for line in job.lines] == ["1/5", "4/5"]
    job.display.close()
    assert job.lines[-1] == "progress: rank 0 5/5 (100 %); 2 steps/s"


def test_lines_grow_rarer_but_never_rarer_than_every_half_hour():
    job, times = Job(), []
    for minute in range(7 * 24 * 60):
        before = len(job.lines)
        job.show(60.0 * minute, minute)
        times += [minute] * (len(job.lines) - before)
    gaps = [later - earlier for earlier, later in pairwise(times)]
    assert gaps == sorted(gaps)
    assert (gaps[0], gaps[-1]) == (1, 30)
    assert 300 < len(job.lines) < 1000


def test_a_line_has_the_rate_of_the_slowest_rank_and_the_time_that_is_left():
    job = Job()
    job.show(0.0, 10, 10, total=1000)
    job.show(10.0, 30, 50, total=1000)
    job.show(20.0, 31, 70, total=1000)
    assert [line.partition("; ")[2] for line in job.lines] == [
        "",
        "2 steps/s, 8 min 5 s left",
        "10 s a step, 2 h 41 min left",
    ]


def test_there_is_no_rate_after_a_restart_and_no_time_left_without_a_total():
    job = Job()
    for now, step in [(0.0, 10), (10.0, 5), (20.0, 25)]:
        job.show(now, step)
    assert job.lines == [
        "progress: rank 0 10",
        "progress: rank 0 5",
        "progress: rank 0 25; 2 steps/s",
    ]


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
