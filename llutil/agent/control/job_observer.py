"""Hears all that the agent tells its observer, keeps what people ask for, and passes it on."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence

from llutil.agent.observer import AgentObserver
from llutil.agent_socket.messages import JobStatus
from llutil.agent_socket.round_end import RoundEnd
from llutil.progress.pace import Pace, Steps, pace

__all__ = ["JobObserver"]

# The rate is that of so many seconds, measured from points that are so many seconds apart.
_MARKS, _BETWEEN_MARKS = 6, 2.0


class JobObserver:
    """The observer ``inner``, and what it last heard: of the round (``world_size`` 0 and no
    ``ranks`` while none runs), of steps and metrics, of checkpoints and of what was asked.

    ``on_change`` is called when a round has begun or ended, when its ranks have reported their
    first steps, and when something was asked.
    """

    wants_progress = True

    def __init__(self, inner: AgentObserver) -> None:
        self._inner = inner
        self.captures, self.wants_status = inner.captures, inner.wants_status
        self.leaves_out = inner.leaves_out
        self.on_change: Callable[[], None] = lambda: None
        self.restarts = self.world_size = 0
        self.ranks: tuple[int, ...] = ()
        self.steps: Steps = {}
        self.metrics: Mapping[str, float] = {}
        self.saved_step: int | None = None
        self.detail = ""
        self._marks: deque[tuple[float, Steps]] = deque(maxlen=_MARKS)
        self._heard_at = 0.0

    @property
    def pace(self) -> Pace | None:
        """The pace of the slowest rank in the last seconds; None if it is not known."""
        if not self._marks or not self.steps:
            return None
        since, before = self._marks[0]
        return pace(self.steps, self._heard_at - since, before)

    def fds(self) -> set[int]:
        """See ``AgentObserver``, here and below."""
        return self._inner.fds()

    def output_lines(self, rank: int, prefix: str, stream: str, lines: Sequence[str]) -> None:
        """Pass them on."""
        self._inner.output_lines(rank, prefix, stream, lines)

    def round(self, restart: int, world_size: int, ranks: tuple[int, ...]) -> None:
        """A round has begun, or ended."""
        self.restarts, self.world_size, self.ranks = restart, world_size, ranks
        self._marks.clear()
        if ranks:
            self.steps, self.metrics, self.saved_step, self.detail = {}, {}, None, ""
        self._inner.round(restart, world_size, ranks)
        self.on_change()

    def round_ended(self, end: RoundEnd) -> None:
        """Pass it on."""
        self._inner.round_ended(end)

    def status(self, status: JobStatus) -> None:
        """Pass it on."""
        self._inner.status(status)

    def time_spent(
        self, seconds: float, training_share: float | None, restarts: int, text: str
    ) -> None:
        """Pass it on."""
        self._inner.time_spent(seconds, training_share, restarts, text)

    def ledger_served(self, endpoint: str) -> None:
        """Pass it on."""
        self._inner.ledger_served(endpoint)

    def progress(self, ranks: Mapping[int, tuple[int, int]], metrics: Mapping[str, float]) -> None:
        """Keep it, and pass it on to who wants it."""
        if ranks:
            if not self.steps:
                self.on_change()
            self.steps, self.metrics = dict(ranks), dict(metrics)
            now = self._heard_at = time.monotonic()
            if not self._marks or now - self._marks[-1][0] >= _BETWEEN_MARKS:
                self._marks.append((now, self.steps))
        if self._inner.wants_progress:
            self._inner.progress(ranks, metrics)

    def measured(self, what: str, seconds: float) -> None:
        """Pass it on."""
        self._inner.measured(what, seconds)

    def saved(self, step: int, seconds: float | None = None, path: str = "") -> None:
        """Keep it, and pass it on."""
        self.saved_step = step
        self._inner.saved(step, seconds, path)

    def steered(self, text: str, now: str = "") -> None:
        """Keep it, and pass it on."""
        self.detail = text
        self._marks.clear()  # a time in which ranks were held is no part of their pace
        self._inner.steered(text, now)
        self.on_change()

    def stopped(self, step: int, why: str) -> None:
        """Pass it on."""
        self._inner.stopped(step, why)

    def congested(self) -> bool:
        """Ask the other one."""
        return self._inner.congested()

    def when_not_congested(self, resume: Callable[[], None]) -> None:
        """Tell the other one."""
        self._inner.when_not_congested(resume)
