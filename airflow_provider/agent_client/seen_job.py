"""What a task has seen of its job so far, by its agent's messages.

It reads only the monotonic clock. It may import only the standard library and
``llutil.task_link.job_events``.
"""

from __future__ import annotations

import time

from llutil.task_link.job_events import JobEvent, Progress, RoundBegan, Stopped

__all__ = ["SeenJob"]


class SeenJob:
    """One job of one agent.

    * ``world_size``: the number of ranks in the last round, on all nodes; 0 before the first round.
    * ``idle_since``: since when no worker runs on this node, in seconds on the monotonic clock. It
      is infinite while a worker runs, and before the agent has sent its first message.
    * ``furthest``: the greatest step that any rank of this node has reported.
    * ``stopped``: that the job was stopped because somebody asked for that; None if it was not.
    """

    def __init__(self) -> None:
        self.world_size = 0
        self.furthest = 0
        self.idle_since = float("inf")
        self.stopped: Stopped | None = None

    def agent_began(self) -> None:
        """The agent has sent its first message."""
        self.idle_since = time.monotonic()

    def hear(self, event: JobEvent) -> None:
        """Something has happened."""
        match event:
            case RoundBegan(ranks=()):
                self.idle_since = time.monotonic()
            case RoundBegan(world_size=world_size):
                self.world_size = world_size
                self.idle_since = float("inf")
            case Progress(ranks=ranks):
                self.furthest = max(self.furthest, *(step for step, _ in ranks.values()), 0)
            case Stopped():
                self.stopped = event
            case _:
                pass
