"""Makes every run id: of an Airflow task, of a gang, of a launch outside Airflow.

An id is what ``llutil.job_name`` makes: at most 128 characters of ``[A-Za-z0-9._-]`` that begin
with a letter, a digit or ``_``. So it is valid as a rendezvous id of every backend, as a folder's
name and as an etcd key. Airflow's own identifiers are not: run ids hold ``+`` and ``:``, a changed
``allowed_run_id_pattern`` allows ``/``, and they may be 250 characters long.

This module may import only the standard library and ``llutil.job_name``: parsing a DAG imports it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from llutil.job_name import job_name, name_by_chance

__all__ = ["RUN_ID", "TaskKey", "deduce_run_id", "is_named_by"]

RUN_ID = "LLUTIL_RUN_ID"
"""The environment variable with the run id of a launch whose configuration has none."""

_AIRFLOW = (
    "AIRFLOW_CTX_DAG_ID",
    "AIRFLOW_CTX_TASK_ID",
    "AIRFLOW_CTX_DAG_RUN_ID",
    "AIRFLOW_CTX_TRY_NUMBER",
)


@dataclass(frozen=True, slots=True)
class TaskKey:
    """One task instance of Airflow, the same for all of its tries. ``map_index`` is -1 for a task
    that is not mapped.

    ``run_after`` is when the DAG run was triggered, or due. It tells the run from a deleted one
    that had the same id. Clearing a run does not change it (Airflow 3.3).
    """

    dag_id: str
    task_id: str
    run_id: str
    map_index: int = -1
    run_after: str = ""

    def slug(self, deployment: str = "") -> str:
        """A name that all tries of this task instance share. One try names files on its host by it,
        and the next try finds them.

        ``deployment`` tells apart Airflow deployments that run tasks with the same ids on one host.
        """
        return self._name((), deployment)

    def rendezvous_id(self, try_number: int, attempt: int) -> str:
        """The run id of one launch: ``attempt`` counts the launches inside the Airflow try
        ``try_number``.
        """
        return self._name((try_number, attempt), self.run_after)

    def gang_id(self) -> str:
        """The run id of the gang that this task instance is a node of. It is the same for all nodes
        of the gang, for all their tries and for reruns.
        """
        exact = [self.dag_id, self.task_id, self.run_id, self.run_after, "gang"]
        return job_name([self.dag_id, self.task_id, self.run_id], exact)

    def checkpoint_job(self, first_start: str, *, of_gang: bool) -> str:
        """The name of the folder of this task's checkpoints, the same for all of its tries. A gang
        has one for all its nodes. ``first_start`` is when the DAG run was first started: it tells
        this deployment from others that use the same store.
        """
        index = None if of_gang else self.map_index
        readable = [self.dag_id, self.task_id, self.run_id]
        if index is not None and index >= 0:
            readable.append(f"m{index}")
        exact = [self.dag_id, self.task_id, self.run_id, index, self.run_after, first_start]
        return job_name(readable, [*exact, "checkpoints"])

    def _name(self, launch: tuple[int, ...], more: str) -> str:
        readable = [self.dag_id, self.task_id, self.run_id]
        if self.map_index >= 0:
            readable.append(f"m{self.map_index}")
        readable += [f"{letter}{number}" for letter, number in zip("ta", launch, strict=False)]
        exact: list[str | int | None] = [self.dag_id, self.task_id, self.run_id, self.map_index]
        return job_name(readable, [*exact, *launch, more])


def is_named_by(environ: Mapping[str, str]) -> bool:
    """Whether ``environ`` has what ``deduce_run_id`` makes a run id from; else it is random, and
    nobody else knows it.
    """
    return bool(environ.get(RUN_ID)) or all(environ.get(name) for name in _AIRFLOW[:3])


def deduce_run_id(environ: Mapping[str, str]) -> str:
    """A run id for a job that is started in ``environ`` and was given none; never empty.

    ``LLUTIL_RUN_ID`` is taken as it is. Else the id is made from Airflow's variables of a running
    task, which identify one try of it (measured with Airflow 3.3.2). They do not hold the map
    index, so mapped tasks that share a rendezvous store must be given run ids, as the operator
    does. Without these variables the id is random.
    """
    if not is_named_by(environ):
        return name_by_chance()
    values = [environ.get(name, "") for name in _AIRFLOW]
    return environ.get(RUN_ID) or job_name(values, values)
