"""``RankPlan``: how one rank is started, as a value."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from llutil.agent.output.log_files import Route

__all__ = ["RankPlan", "files_by_default"]


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


def files_by_default(plans: Sequence[RankPlan]) -> str:
    """Where the output is that goes into files although nobody asked for that, for the log; empty
    if there is none.
    """
    lines = []
    for plan in plans:
        files = [r.file for r in (plan.stdout, plan.stderr) if r.file is not None and r.by_default]
        if files:
            names = ", ".join(file.name for file in files)
            lines.append(f"  rank {plan.rank}: {files[0].parent}/ {names}")
    if not lines:
        return ""
    return "\n".join(
        [
            "of the ranks of this job only rank 0 is in the log, as they are many "
            '(local_ranks_filter="all" shows all). The output of the others is in files, which '
            "Airflow keeps after a success if log_dir is given:",
            *lines,
        ]
    )
