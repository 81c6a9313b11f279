"""A node of a gang and its siblings: who the node is, and whether the job can still run with it.

A node that has succeeded leaves a note in XCom. Before a node waits for others, it reads their
states from Airflow, and these notes. The functions here decide from values; ``GangNode`` reads the
values from a task's context.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from airflow_provider.gang.xcom_values import VERSION, pull_all, value_of
from airflow_provider.parameters.task_key import task_key
from llutil.errors import ConfigError
from llutil.launcher.run_id import TaskKey

__all__ = [
    "NOTE",
    "GangDone",
    "GangHopeless",
    "GangNode",
    "GangOpen",
    "SuccessNote",
    "notes_of",
    "outlook",
    "states_of",
    "waits_in_vain",
]

NOTE = "gang"
"""The XCom key of a node's note."""

_OVER = frozenset({"success", "failed", "skipped", "upstream_failed", "removed"})
"""The states that a task instance keeps until somebody clears it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SuccessNote:
    """What a node that has succeeded tells its siblings: which launch it was, and its ranks.

    ``rerun_token`` is that of its launch. ``world_size`` is 0 if the job succeeded without the
    node.
    """

    node: int
    nodes: int
    rerun_token: str
    ranks: tuple[int, ...]
    world_size: int

    def to_json(self) -> dict[str, Any]:
        """The note as it is stored in XCom."""
        return asdict(self) | {"ranks": list(self.ranks), "version": VERSION}

    @classmethod
    def of(cls, value: Any) -> SuccessNote | None:
        """The note in an XCom value; None if the value is not a note."""
        return value_of(cls, value)


@dataclass(frozen=True, slots=True)
class GangOpen:
    """The job can still run with this node."""


@dataclass(frozen=True, slots=True)
class GangDone:
    """The job has succeeded without this node; ``why`` says on which nodes."""

    why: str


@dataclass(frozen=True, slots=True)
class GangHopeless:
    """Too few nodes can ever come; ``why`` says what to clear instead."""

    why: str


def outlook(
    node: int,
    nodes: int,
    min_nodes: int,
    states: Mapping[int, str | None],
    notes: Mapping[int, SuccessNote],
    rerun_token: str,
    *,
    host: int | None = None,
) -> GangOpen | GangDone | GangHopeless:
    """Whether the job can still run with ``node``, by the states and notes of its siblings.

    ``states`` are by node. A node without a state has not been scheduled yet, and can still come.
    ``host`` is the node that hosts the job's store, if one does: no other node can do without it.
    """
    others = [number for number in range(nodes) if number != node]
    done = [
        number
        for number in others
        if states.get(number) == "success"
        and (note := notes.get(number)) is not None
        and note.rerun_token == rerun_token
        and note.world_size > 0
    ]
    if done:
        return GangDone(f"the job succeeded without this node, on {_listed(done)}")
    over = {number: state for number in others if (state := states.get(number)) in _OVER}
    if host in over:
        return GangHopeless(
            f"node {node} would wait in vain: node {host}, which hosts the job's store, is "
            f"{over[host]}. Clear the whole task, all its mapped instances, or let the nodes meet "
            "by a connection (rdzv_conn_id)"
        )
    return _enough(node, nodes, min_nodes, over)


def waits_in_vain(
    node: int,
    nodes: int,
    min_nodes: int,
    states: Mapping[int, str | None],
    notes: Mapping[int, SuccessNote],
    rerun_token: str,
) -> GangHopeless | None:
    """Whether ``node``, whose agent runs but whose workers do not, waits in vain.

    A sibling that has succeeded may have been in one job with this node. Then this node need not
    wait for anybody: it will soon learn that the job succeeded. The sibling's rerun token may be a
    later one: it was cleared while the others ran, and joined them again.
    """
    over = {
        number: state
        for number in range(nodes)
        if number != node
        and (state := states.get(number)) in _OVER
        and not (
            state == "success"
            and (note := notes.get(number)) is not None
            and note.world_size > 0
            and _began(note.rerun_token) == _began(rerun_token)
        )
    }
    found = _enough(node, nodes, min_nodes, over)
    return found if isinstance(found, GangHopeless) else None


def _enough(
    node: int, nodes: int, min_nodes: int, over: Mapping[int, str | None]
) -> GangOpen | GangHopeless:
    """Whether enough nodes can still come, without those that are ``over``."""
    if nodes - len(over) >= min_nodes:
        return GangOpen()
    described = ", ".join(f"node {number} is {state}" for number, state in over.items())
    return GangHopeless(
        f"node {node} would wait in vain: the job needs {min_nodes} of {nodes} nodes, and only "
        f"{nodes - len(over)} can still come ({described}). Clear the whole task, all its mapped "
        "instances, instead of this one alone"
    )


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
        return cls(key, nodes, min_nodes, _rerun_token(context["dag_run"]))

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

    def outlook(self, ti: Any, *, host: int | None = None) -> GangOpen | GangDone | GangHopeless:
        """Whether the job can still run with this node, as Airflow says now; see ``outlook``."""
        notes = notes_of(ti, self.key.task_id)
        return outlook(
            self.number,
            self.nodes,
            self.min_nodes,
            self.states(ti),
            notes,
            self.rerun_token,
            host=host,
        )

    def waits_in_vain(self, ti: Any) -> GangHopeless | None:
        """Whether this node waits in vain, by what Airflow says now; see ``waits_in_vain``."""
        notes = notes_of(ti, self.key.task_id)
        return waits_in_vain(
            self.number, self.nodes, self.min_nodes, self.states(ti), notes, self.rerun_token
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


def notes_of(ti: Any, task_id: str) -> dict[int, SuccessNote]:
    """The notes of a gang's nodes, by node, in the DAG run of ``ti``."""
    notes = map(SuccessNote.of, pull_all(ti, task_id, NOTE))
    return {note.node: note for note in notes if note is not None}


def states_of(ti: Any, task_id: str, nodes: int) -> dict[int, str | None]:
    """The states of a gang's nodes, by node, in the DAG run of ``ti``.

    The state is None for a node that has not been scheduled yet.
    """
    answer = ti.get_task_states(dag_id=ti.dag_id, task_ids=[task_id], run_ids=[ti.run_id])
    found = answer.get(ti.run_id, {})
    return {number: found.get(f"{task_id}_{number}") for number in range(nodes)}


def _rerun_token(dag_run: Any) -> str:
    """A token that all launches of a DAG run share, until somebody clears a task of the run.

    The clear number grows with each clearing (Airflow 3.3). A run that was deleted and triggered
    again under the same id begins at 0 again; its start date is different.
    """
    started = dag_run.start_date
    return f"{dag_run.clear_number or 0}@{started.isoformat() if started else ''}"


def _began(rerun_token: str) -> str:
    return rerun_token.partition("@")[2]


def _listed(numbers: Sequence[int]) -> str:
    return ", ".join(f"node {number}" for number in numbers)
