"""A rank that cannot be started leaves nothing open."""

from __future__ import annotations

import gc
import os
from pathlib import Path
from typing import Any

import pytest

from llutil.agent.event_loop import EventLoop
from llutil.agent.observer import TerminalObserver
from llutil.agent.output.log_files import Route
from llutil.agent.workers.rank import Worker
from llutil.agent.workers.rank_plan import RankPlan

NOT_THERE = "/nowhere/at/all.log"


class Broken:
    """A starter that fails."""

    def start(self, _request: Any) -> Any:
        raise OSError("no more processes")


def _descriptors() -> set[str]:
    return set(os.listdir("/proc/self/fd"))  # noqa: PTH208 - numbers


@pytest.mark.parametrize("file", [None, NOT_THERE], ids=["the start", "a log file"])
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
    before = _descriptors()
    gc.disable()
    try:
        with pytest.raises(OSError, match=r"no more processes|No such file"):
            Worker(plan, Broken(), -1, loop, TerminalObserver())  # type: ignore[arg-type]
        assert _descriptors() == before
    finally:
        gc.enable()
        loop.close()
