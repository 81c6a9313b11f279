"""What an agent has said of the end of its job: what each rank returned, and how the job ended.

Nothing here acts. This module may import only the standard library, ``error_from_message``,
``llutil.errors`` and ``llutil.task_link.messages``.
"""

from __future__ import annotations

from typing import Any

from airflow_provider.agent_client.error_from_message import error_from
from llutil.errors import ResultError
from llutil.task_link.messages import JobFailed, JobSucceeded, Result, ResultInFile

__all__ = ["ReportedEnd"]


class ReportedEnd:
    """The end of one job on one node. A message that is heard twice changes nothing."""

    def __init__(self) -> None:
        self._results: dict[int, Any] = {}
        self._last: JobSucceeded | JobFailed | None = None

    def hear(self, message: Result | ResultInFile | JobSucceeded | JobFailed) -> None:
        """Something was said."""
        match message:
            case Result(rank=rank, value=value):
                self._results[rank] = value
            case ResultInFile(rank=rank):
                self._results[rank] = message
            case JobSucceeded() | JobFailed():
                self._last = message

    def values(self) -> dict[int, Any] | None:
        """The value of each rank, or its place in the results file, in rank order; None if the
        agent has not said how the job ended.

        :raises ResultError: the job has succeeded, but a value has not come.
        :raises LaunchError: the job failed.
        """
        match self._last:
            case None:
                return None
            case JobFailed():
                raise error_from(self._last, self._results)
            case JobSucceeded(ranks=ranks):
                pass
        values = {rank: self._results[rank] for rank in sorted(ranks) if rank in self._results}
        lost = [str(rank) for rank in sorted(ranks) if rank not in values]
        if lost:
            error = ResultError(
                f"the job has succeeded, but only {len(values)} of {len(ranks)} ranks of this node "
                f"have said what they returned; missing: rank {', '.join(lost)}. What they said "
                "was lost between the agent and its task. Clear the task to run the job again, if "
                "the values are needed"
            )
            error.results = values
            raise error
        return values
