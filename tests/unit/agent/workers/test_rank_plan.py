"""What the log says of the ranks that it does not show."""

from __future__ import annotations

from pathlib import Path

from llutil.agent.output.log_files import Route
from llutil.agent.workers.rank_plan import RankPlan, files_by_default


def _plan(rank: int, stdout: Route, stderr: Route) -> RankPlan:
    return RankPlan(
        rank=rank,
        local_rank=rank,
        prefix="",
        env={},
        stdin=None,
        stdout=stdout,
        stderr=stderr,
        returns=True,
        signal_session=False,
        exit_timeout=1.0,
    )


def test_the_files_of_each_rank_that_is_not_shown_are_listed_in_a_line() -> None:
    shown = Route(None, console=True)
    files = [
        Route(Path(f"/logs/run/attempt_0/1/{name}.log"), console=False, by_default=True)
        for name in ("stdout", "stderr")
    ]
    asked_for = Route(Path("/logs/run/attempt_0/2/stdout.log"), console=False)
    told = files_by_default(
        [_plan(0, shown, shown), _plan(1, *files), _plan(2, asked_for, files[1])]
    )
    first, *lines = told.splitlines()
    assert 'local_ranks_filter="all" shows all' in first
    assert lines == [
        "  rank 1: /logs/run/attempt_0/1/ stdout.log, stderr.log",
        "  rank 2: /logs/run/attempt_0/1/ stderr.log",
    ]
    assert files_by_default([_plan(0, shown, shown), _plan(2, asked_for, asked_for)]) == ""
