"""``RankPlan``: how one rank is started, as a value."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from llutil.agent.output.log_files import Route

__all__ = ["RankPlan"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RankPlan:
    """How one rank is started.

    ``stdin`` is its standard input, or None for an empty one.
    ``returns`` says that it runs a function, which must hand in a value. ``signal_session`` says
    that signals go to its whole process group, because it is a command that may not pass them on.
    ``exit_timeout`` is how many seconds its process may take to end after its function returned.
    """

    rank: int
    local_rank: int
    prefix: str
    env: Mapping[str, str]
    stdin: int | None
    stdout: Route
    stderr: Route
    returns: bool
    signal_session: bool
    exit_timeout: float
