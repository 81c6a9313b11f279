"""Lines of progress: now and then, more rarely with time and with nodes, and one at the end."""

from __future__ import annotations

from itertools import pairwise

from llutil.progress.log_lines import ProgressLines


class Job:
    """Progress that is shown at times of the test's own."""

    def __init__(self) -> None:
        self.now = 0.0
        self.lines: list[str] = []
        self.display = ProgressLines(self.lines.append, clock=lambda: self.now)

    def show(self, now: float, *steps: int, total: int = 0, **metrics: float) -> None:
        self.now = now
        self.display.show({rank: (step, total) for rank, step in enumerate(steps)}, metrics)


def test_lines_come_at_most_every_few_seconds_and_the_last_one_at_the_end() -> None:
    job = Job()
    for step, now in [(1, 0.0), (2, 0.5), (3, 4.9), (4, 5.0), (5, 5.5)]:
        job.show(now, step, total=5, loss=1 / step)
    assert [line.split()[3] for line in job.lines] == ["1/5", "4/5"]
    job.display.close()
    assert job.lines[-1] == "progress: rank 0 5/5 (100 %); 2 steps/s; loss 0.2"


def test_lines_grow_rarer_but_never_rarer_than_every_half_hour() -> None:
    job = Job()
    times: list[int] = []
    for minute in range(7 * 24 * 60):
        before = len(job.lines)
        job.show(60.0 * minute, minute)
        times += [minute] * (len(job.lines) - before)
    gaps = [later - earlier for earlier, later in pairwise(times)]
    assert gaps == sorted(gaps)
    assert (gaps[0], gaps[-1]) == (1, 30)
    assert 300 < len(job.lines) < 1000


def test_lines_are_the_rarer_the_more_nodes_there_are() -> None:
    counts = []
    for nodes in (1, 8, 1000):
        job = Job()
        job.display.begin(nodes)
        for second in range(3600):
            job.show(second, second)
        counts.append(len(job.lines))
    assert counts == [181, 25, 2]


def test_a_line_has_the_rate_of_the_slowest_rank_and_the_time_that_is_left() -> None:
    job = Job()
    job.show(0.0, 10, 10, total=1000)
    job.show(10.0, 30, 50, total=1000)
    job.show(20.0, 31, 70, total=1000)
    assert [line.partition("; ")[2] for line in job.lines] == [
        "",
        "2 steps/s, 8 min 5 s left",
        "10 s a step, 2 h 41 min left",
    ]


def test_there_is_no_rate_after_a_restart_and_no_time_left_without_a_total() -> None:
    job = Job()
    for now, step in [(0.0, 10), (10.0, 5), (20.0, 25)]:
        job.show(now, step)
    assert job.lines == [
        "progress: rank 0 10",
        "progress: rank 0 5",
        "progress: rank 0 25; 2 steps/s",
    ]


def test_a_job_without_progress_leaves_no_line() -> None:
    lines: list[str] = []
    ProgressLines(lines.append).close()
    assert lines == []


def test_the_last_line_is_not_written_twice() -> None:
    lines: list[str] = []
    display = ProgressLines(lines.append)
    display.show({0: (1, 1)}, {})
    display.show({0: (1, 1)}, {})  # as an agent repeats it
    display.close()
    assert len(lines) == 1
