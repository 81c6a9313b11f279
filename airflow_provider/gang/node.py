"""A node of a gang among its siblings: who it is, what the others tell it, and whether there is any
point in waiting.

Nodes leave a note in XCom when they have succeeded. Before a node waits for others, it reads what
Airflow and these notes say of them. Functions here decide from values; ``GangNode`` reads them from
a task's context.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

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
    "prospect",
    "pulled",
    "states_of",
    "stranded",
]

NOTE = "gang"
"""The XCom key of a node's note."""

_OVER = frozenset({"success", "failed", "skipped", "upstream_failed", "removed"})
"""States in which a task instance stays until somebody clears it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SuccessNote:
    """What a node that has succeeded tells others: whose job it was, and which ranks were its own.

    ``life`` is the rerun token of its launch. ``world_size`` is 0 if the job did not need the node.
    """

    node: int
    nodes: int
    life: str
    ranks: tuple[int, ...]
    world_size: int

    def to_json(self) -> dict[str, Any]:
        """As it lies in XCom."""
        return asdict(self) | {"ranks": list(self.ranks), "version": 1}

    @classmethod
    def of(cls, value: Any) -> SuccessNote | None:
        """The note in an XCom value; None if it is none."""
        if not isinstance(value, Mapping) or value.get("version") != 1:
            return None
        fields = {name: value[name] for name in cls.__dataclass_fields__}
        return cls(**fields | {"ranks": tuple(fields["ranks"])})


@dataclass(frozen=True, slots=True)
class GangOpen:
    """The job can still come about."""


@dataclass(frozen=True, slots=True)
class GangDone:
    """The job has succeeded without this node."""

    why: str


@dataclass(frozen=True, slots=True)
class GangHopeless:
    """Too few nodes can ever come; ``why`` says what to clear instead."""

    why: str


def prospect(
    node: int,
    nodes: int,
    min_nodes: int,
    states: Mapping[int, str | None],
    notes: Mapping[int, SuccessNote],
    life: str,
    *,
    host: int | None = None,
) -> GangOpen | GangDone | GangHopeless:
    """Whether ``node`` has anything to wait for, by its siblings' states and notes.

    ``states`` are by node; a node that has none has not been scheduled yet, and can still come.
    ``host`` is the node that no other can do without, if there is one.
    """
    others = [number for number in range(nodes) if number != node]
    done = [
        number
        for number in others
        if states.get(number) == "success"
        and (note := notes.get(number)) is not None
        and note.life == life
        and note.world_size > 0
    ]
    if done:
        return GangDone(f"the job succeeded without this node, on {_listed(done)}")
    over = {number: state for number in others if (state := states.get(number)) in _OVER}
    if host in over:
        return GangHopeless(
            f"node {node} would wait in vain: node {host}, which hosts the job's store, is {over[host]}. Clear the whole "
            "task, all its mapped instances, or let the nodes meet by a connection (rdzv_conn_id)"
        )
    return _enough(node, nodes, min_nodes, over)


def stranded(
    node: int,
    nodes: int,
    min_nodes: int,
    states: Mapping[int, str | None],
    notes: Mapping[int, SuccessNote],
    life: str,
) -> GangHopeless | None:
    """Whether ``node``, which was launched and whose workers do not run, waits in vain, by its
    siblings' states and notes.

    A sibling that has succeeded may have been in one job with this node, who then need not wait for
    anybody and is about to hear of it. Its life may be a later one: it was cleared while the others
    ran, and came back to them.
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
            and _began(note.life) == _began(life)
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
    told = ", ".join(f"node {number} is {state}" for number, state in over.items())
    return GangHopeless(
        f"node {node} would wait in vain: the job needs {min_nodes} of {nodes} nodes, and only "
        f"{nodes - len(over)} can still come ({told}). Clear the whole task, all its mapped instances, instead of "
        "this one alone"
    )


@dataclass(frozen=True, slots=True)
class GangNode:
    """One node of a gang: the task instance ``key``, whose map index is the node's number."""

    key: TaskKey
    nodes: int
    min_nodes: int
    life: str

    @classmethod
    def of(cls, context: Mapping[str, Any], nodes: int, min_nodes: int) -> GangNode:
        """The node that ``context`` belongs to.

        :raises ConfigError: the task was not expanded to one instance a node.
        """
        key = task_key(context)
        count = context.get("expanded_ti_count", nodes)
        if not 0 <= key.map_index < nodes or count not in {nodes, None}:
            raise ConfigError(
                f"a gang of {nodes} nodes is instance {key.map_index} of {count} mapped instances; wanted one for "
                "each node, as .gang() makes them; a sweep of independent jobs is no gang"
            )
        return cls(key, nodes, min_nodes, _life(context["dag_run"]))

    @property
    def number(self) -> int:
        """Its place among the nodes, from 0."""
        return self.key.map_index

    @property
    def name(self) -> str:
        """What people call it."""
        return f"node {self.number}"

    def parameters(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """The parameters of its launch that follow from being a node; those in ``given`` that a
        user has set stay.
        """
        own = {
            "rdzv_id": self.key.gang_id(),
            "rerun_token": self.life,
            "node_label": self.name,
        }
        return {"node_index": self.number} | {
            name: given.get(name) or value for name, value in own.items()
        }

    def prospect(self, ti: Any, *, host: int | None = None) -> GangOpen | GangDone | GangHopeless:
        """Whether it has anything to wait for, as Airflow says now; ``host`` is a node that all of
        them need.
        """
        notes = notes_of(ti, self.key.task_id)
        return prospect(
            self.number, self.nodes, self.min_nodes, self.states(ti), notes, self.life, host=host
        )

    def stranded(self, ti: Any) -> GangHopeless | None:
        """Whether it waits in vain, as Airflow says now."""
        notes = notes_of(ti, self.key.task_id)
        return stranded(self.number, self.nodes, self.min_nodes, self.states(ti), notes, self.life)

    def states(self, ti: Any) -> dict[int, str | None]:
        """The states of all nodes, by number, as Airflow says now."""
        return states_of(ti, self.key.task_id, self.nodes)

    def note(self, ranks: Sequence[int], world_size: int) -> SuccessNote:
        """Its own note."""
        return SuccessNote(
            node=self.number,
            nodes=self.nodes,
            life=self.life,
            ranks=tuple(ranks),
            world_size=world_size,
        )


def notes_of(ti: Any, task_id: str) -> dict[int, SuccessNote]:
    """The notes of a gang's nodes, by number, in the DAG run of ``ti``."""
    notes = map(SuccessNote.of, pulled(ti, task_id, NOTE))
    return {note.node: note for note in notes if note is not None}


def pulled(ti: Any, task_id: str, key: str) -> list[Any]:
    """What the mapped instances of a task have pushed under ``key``, in order; only what is there.

    To ask for each instance by its map index would leave an error in the log for each that has
    pushed nothing, and of one value alone Airflow makes no list (3.3).
    """
    found = ti.xcom_pull(task_ids=task_id, key=key)
    return found if isinstance(found, list) else [found]


def states_of(ti: Any, task_id: str, nodes: int) -> dict[int, str | None]:
    """The states of a gang's nodes, by number, in the DAG run of ``ti``; None for one that has none
    yet.
    """
    answer = ti.get_task_states(dag_id=ti.dag_id, task_ids=[task_id], run_ids=[ti.run_id])
    found = answer.get(ti.run_id, {})
    return {number: found.get(f"{task_id}_{number}") for number in range(nodes)}


def _life(dag_run: Any) -> str:
    """What all launches of a DAG run have in common until somebody clears a task of it.

    The clear number grows with every clearing (Airflow 3.3). A run that was deleted and triggered
    again under the same id begins at 0 again; its start tells it apart.
    """
    started = dag_run.start_date
    return f"{dag_run.clear_number or 0}@{started.isoformat() if started else ''}"


def _began(life: str) -> str:
    return life.partition("@")[2]


def _listed(numbers: Sequence[int]) -> str:
    return ", ".join(f"node {number}" for number in numbers)
