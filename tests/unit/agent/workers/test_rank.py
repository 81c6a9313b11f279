"""A rank that cannot be started leaves nothing open."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Any

import pytest

from llutil.agent.event_loop import EventLoop
from llutil.agent.observer import TerminalObserver
from llutil.agent.output.log_files import Route
from llutil.agent.workers.rank import Worker
from llutil.agent.workers.rank_plan import RankPlan
from tests.support.descriptors import open_descriptors
from tests.support.forks import in_a_fork

NOT_THERE = "/nowhere/at/all.log"


class Broken:
    """A starter that fails."""

    def start(self, _request: Any) -> Any:
        raise OSError("no more processes")


@pytest.mark.parametrize("file", [None, NOT_THERE], ids=["the start", "a log file"])
@in_a_fork
def test_a_rank_that_cannot_be_started_leaves_no_descriptor(file: str | None) -> None:
    plan = RankPlan(
        rank=0,
        local_rank=0,
        prefix="",
        env={},
        stdin=None,
        stdout=Route(None, console=True),
        stderr=Route(None if file is None else Path(file), console=True),
        returns=True,
        signal_session=False,
        exit_timeout=1.0,
    )
    loop = EventLoop()
    before = open_descriptors()
    gc.disable()
    try:
        with pytest.raises(OSError, match=r"no more processes|No such file"):
            Worker(plan, Broken(), -1, loop, TerminalObserver())  # type: ignore[arg-type]
        assert open_descriptors() == before
    finally:
        gc.enable()
        loop.close()
