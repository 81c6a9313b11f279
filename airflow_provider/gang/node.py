"""A node of a gang: who it is among its siblings, and how it asks Airflow about them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from airflow_provider.gang.siblings import GangView
from airflow_provider.gang.success_note import SuccessNote, notes_of
from airflow_provider.parameters.task_key import task_key
from llutil.errors import ConfigError
from llutil.launcher.run_id import TaskKey

__all__ = ["GangNode", "rerun_token", "states_of"]


@dataclass(frozen=True, slots=True)
class GangNode:
    """One node of a gang: the task instance ``key``, whose map index is the node's number."""

    key: TaskKey
    nodes: int
    min_nodes: int
    rerun_token: str

    @classmethod
    def of(cls, context: Mapping[str, Any], nodes: int, min_nodes: int) -> GangNode:
        """The node that ``context`` belongs to.

        :raises ConfigError: the task was not expanded to one instance for each node.
        """
        key = task_key(context)
        count = context.get("expanded_ti_count", nodes)
        if not 0 <= key.map_index < nodes or count not in {nodes, None}:
            raise ConfigError(
                f"a gang of {nodes} nodes is instance {key.map_index} of {count} mapped instances; "
                "wanted one for each node, as .gang() makes them; a sweep of independent jobs is "
                "not a gang"
            )
        return cls(key, nodes, min_nodes, rerun_token(context["dag_run"]))

    @property
    def number(self) -> int:
        """The node's index, from 0."""
        return self.key.map_index

    @property
    def name(self) -> str:
        """The node's name in logs and errors."""
        return f"node {self.number}"

    def parameters(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """The launch parameters that follow from being this node.

        Those that a user has set in ``given`` stay as they are.
        """
        own = {
            "rdzv_id": self.key.gang_id(),
            "rerun_token": self.rerun_token,
            "node_label": self.name,
        }
        return {"node_index": self.number} | {
            name: given.get(name) or value for name, value in own.items()
        }

    def view(self, ti: Any, *, server: int | None = None) -> GangView:
        """What Airflow says now of all nodes. ``server`` is the node that serves the job's ledger,
        if one does.

        This is one request to Airflow, and another one if a sibling has succeeded.
        """
        states = self.states(ti)
        succeeded = any(state == "success" for state in states.values())
        return GangView(
            node=self.number,
            nodes=self.nodes,
            min_nodes=self.min_nodes,
            rerun_token=self.rerun_token,
            states=states,
            notes=notes_of(ti, self.key.task_id) if succeeded else {},
            server=server,
        )

    def states(self, ti: Any) -> dict[int, str | None]:
        """The states of all nodes, by node, as Airflow says now; see ``states_of``."""
        return states_of(ti, self.key.task_id, self.nodes)

    def note(self, ranks: Sequence[int], world_size: int) -> SuccessNote:
        """The note of this node, with its ``ranks`` and the ``world_size`` of the job."""
        return SuccessNote(
            node=self.number,
            nodes=self.nodes,
            rerun_token=self.rerun_token,
            ranks=tuple(ranks),
            world_size=world_size,
        )


def states_of(ti: Any, task_id: str, nodes: int) -> dict[int, str | None]:
    """The states of a gang's nodes, by node, in the DAG run of ``ti``.

    The state is None for a node that has not been scheduled yet.
    """
    answer = ti.get_task_states(dag_id=ti.dag_id, task_ids=[task_id], run_ids=[ti.run_id])
    found = answer.get(ti.run_id, {})
    return {number: found.get(f"{task_id}_{number}") for number in range(nodes)}


def rerun_token(dag_run: Any) -> str:
    """A token that all launches of a DAG run share, until somebody clears a task of the run.

    The clear number grows with each clearing (Airflow 3.3). A run that was deleted and triggered
    again under the same id begins at 0 again; its start date is different.
    """
    started = dag_run.start_date
    return f"{dag_run.clear_number or 0}@{started.isoformat() if started else ''}"
