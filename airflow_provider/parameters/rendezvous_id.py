"""Names for one task instance's job: the rendezvous id, and a name that stays the same through its
tries.

Airflow's own identifiers cannot be used as they are: run ids hold ``+`` and ``:``, and under a
changed ``allowed_run_id_pattern`` anything, ``/`` included; any of them may be 250 characters long.
``llutil.launcher.job_names`` says what names look like, and why no two jobs share one.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from llutil.launcher.job_names import job_name

__all__ = ["TaskKey", "deployment"]


def deployment() -> str:
    """A short name of the Airflow whose task this process runs; no other one on this host has
    it.
    """
    from airflow.sdk.configuration import conf

    known = [
        conf.get("core", "execution_api_server_url", fallback=""),
        conf.get("api", "base_url", fallback=""),
        os.environ.get("AIRFLOW_HOME", ""),
    ]
    return hashlib.blake2b(repr(known).encode(), digest_size=8).hexdigest()


@dataclass(frozen=True, slots=True)
class TaskKey:
    """One task instance, whichever try of it runs. ``map_index`` is -1 for a task that is not
    mapped.

    ``run_after`` tells a DAG run from one that was deleted and had the same id: it is when the run
    was triggered, or due, and no clearing changes it (Airflow 3.3).
    """

    dag_id: str
    task_id: str
    run_id: str
    map_index: int = -1
    run_after: str = ""

    @classmethod
    def of(cls, context: Mapping[str, Any]) -> TaskKey:
        """The key of the task instance that ``context`` belongs to."""
        ti = context["ti"]
        map_index = -1 if ti.map_index is None else ti.map_index
        dag_run = context.get("dag_run")  # not there if a user's own test calls execute
        run_after = dag_run.run_after.isoformat() if dag_run is not None else ""
        return cls(ti.dag_id, ti.task_id, ti.run_id, map_index, run_after)

    def slug(self, deployment: str = "") -> str:
        """A name that every try of this task instance shares: for what one try leaves to the next
        on a host.

        Several deployments may be on that host, and have tasks of the same ids.
        """
        return self._name((), deployment)

    def rendezvous_id(self, try_number: int, attempt: int) -> str:
        """The name of one launch: ``attempt`` counts the launches inside the Airflow try
        ``try_number``.
        """
        return self._name((try_number, attempt), self.run_after)

    def gang_id(self) -> str:
        """The name of the job of which this is one node: the same for all its nodes, their tries
        and reruns.
        """
        exact = [self.dag_id, self.task_id, self.run_id, self.run_after, "gang"]
        return job_name([self.dag_id, self.task_id, self.run_id], exact)

    def _name(self, launch: tuple[int, ...], more: str) -> str:
        readable = [self.dag_id, self.task_id, self.run_id]
        if self.map_index >= 0:
            readable.append(f"m{self.map_index}")
        readable += [f"{letter}{number}" for letter, number in zip("ta", launch, strict=False)]
        exact: list[str | int | None] = [self.dag_id, self.task_id, self.run_id, self.map_index]
        return job_name(readable, [*exact, *launch, more])
