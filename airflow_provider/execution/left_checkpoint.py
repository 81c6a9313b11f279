"""``LeftCheckpoint``: tells the events of a task's assets which checkpoint its job has left.

Airflow makes an event for each asset in a task's ``outlets`` once the task has succeeded, for each
mapped instance (3.3). Here it gets ``checkpoint_step`` and ``checkpoint_path``, which a DAG that
waits for the asset reads from the event's ``extra``. An ``AssetAlias`` is left to its author.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from airflow.sdk import Asset

from airflow_provider.agent_client.job_listener import JobListener
from llutil.task_link.job_events import JobEvent, Saved

__all__ = ["LeftCheckpoint"]


class LeftCheckpoint(JobListener):
    """Hears which checkpoint a job has left."""

    def __init__(self) -> None:
        self._newest: Saved | None = None

    def hear(self, event: JobEvent) -> None:
        """See ``JobListener``."""
        if isinstance(event, Saved) and event.path:
            self._newest = event

    def tell(self, context: Mapping[str, Any], outlets: Iterable[object]) -> None:
        """Add it to the events of the assets among ``outlets``, if the job has left one."""
        if self._newest is None:
            return
        for outlet in outlets:
            if isinstance(outlet, Asset):
                context["outlet_events"][outlet].extra |= {
                    "checkpoint_step": self._newest.step,
                    "checkpoint_path": self._newest.path,
                }
