"""What a node of a gang sees of its siblings at one moment, and whether the job can run with it.

A sibling that Airflow calls running holds a slot. Whether it has joined the rendezvous yet, Airflow
cannot say: its agent may still start. The functions here decide from values, and this module may
import nothing but the standard library and the room's notes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from airflow_provider.gang.success_note import SuccessNote

__all__ = [
    "GangDone",
    "GangHopeless",
    "GangLost",
    "GangOpen",
    "GangView",
    "absent_nodes",
    "describe_absent",
    "list_absent",
    "outlook",
    "peers_succeeded",
    "started_nodes",
    "waits_in_vain",
]

_OVER = frozenset({"success", "failed", "skipped", "upstream_failed", "removed"})
"""The states that a task instance keeps until somebody clears it."""

_SKIPPED = "skipped"
_STARTED = frozenset({"running", "restarting"})
_WAITING: Mapping[str | None, str] = {
    None: "not scheduled yet, in",
    "scheduled": "scheduled in",
    "queued": "queued in",
    "up_for_reschedule": "has given its slot back, in",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class GangView:
    """What ``node`` sees of its gang at one moment.

    ``states`` are what Airflow says of all nodes, by node. A node without a state has not been
    scheduled yet, and can still come. ``notes`` are those of nodes that have succeeded, in any
    launch; ``rerun_token`` is that of this launch. ``server`` is the node that serves the job's
    ledger, if one does: no node without workers can do without it.
    """

    node: int
    nodes: int
    min_nodes: int
    rerun_token: str
    states: Mapping[int, str | None]
    notes: Mapping[int, SuccessNote]
    server: int | None = None

    @property
    def others(self) -> list[int]:
        """The other nodes."""
        return [number for number in range(self.nodes) if number != self.node]


@dataclass(frozen=True, slots=True)
class GangOpen:
    """The job can still run with this node."""


@dataclass(frozen=True, slots=True)
class GangDone:
    """The job has succeeded without this node; ``why`` says on which nodes."""

    why: str


@dataclass(frozen=True, slots=True)
class GangLost:
    """The job has succeeded with this node, but what its ranks returned is gone; ``why`` says it
    for people.
    """

    why: str


@dataclass(frozen=True, slots=True)
class GangHopeless:
    """Too few nodes can ever come; ``why`` says what to clear instead. ``skipped``: that is since a
    rank of the gang has skipped the task.
    """

    why: str
    skipped: bool = False


def outlook(view: GangView) -> GangOpen | GangDone | GangLost | GangHopeless:
    """Whether the job can still run with a node that has no agent yet."""
    notes = {
        number: note
        for number in view.others
        if view.states.get(number) == "success"
        and (note := view.notes.get(number)) is not None
        and note.rerun_token == view.rerun_token
    }
    if done := [number for number, note in notes.items() if note.world_size > 0]:
        return _after_success(view, notes, done)
    over = {number: state for number in view.others if (state := view.states.get(number)) in _OVER}
    if view.server in over:
        return GangHopeless(
            f"node {view.node} would wait in vain: node {view.server}, which serves the job's "
            f"ledger, is {over[view.server]}. Clear the whole task, all its mapped instances, or "
            "let the nodes meet by a connection (rdzv_conn_id)",
            skipped=over[view.server] == _SKIPPED,
        )
    return _enough(view, over) or GangOpen()


def _after_success(
    view: GangView, notes: Mapping[int, SuccessNote], done: list[int]
) -> GangOpen | GangDone | GangLost:
    """What is left for this node of a job that has succeeded on the nodes ``done``; ``notes`` are
    those of this launch. If ranks are missing in them, an earlier try of this node may have had
    them.
    """
    missing = notes[done[0]].world_size - sum(len(notes[number].ranks) for number in done)
    if missing > 0 and len(notes) == len(view.others):
        return GangLost(
            f"the job has succeeded on {_listed(done)} and on this node, {view.node}: an earlier "
            f"try had {missing} of its ranks, and ended before it could hand on what they "
            "returned. Its log may say where that is kept. To run the whole job again, clear the "
            "whole task, all its mapped instances"
        )
    can_tell = view.server is None or any(
        view.states.get(number) not in _OVER for number in view.others
    )
    if missing > 0 and can_tell:
        return GangOpen()  # a ledger knows who had them, or a node that will soon have succeeded
    return GangDone(f"the job succeeded without this node, on {_listed(done)}")


def waits_in_vain(view: GangView) -> GangHopeless | None:
    """Whether a node whose agent runs, but whose workers do not, waits in vain.

    A sibling that has succeeded with this node is no reason to give up: see ``peers_succeeded``.
    """
    peers = peers_succeeded(view)
    over = {
        number: state
        for number in view.others
        if (state := view.states.get(number)) in _OVER and number not in peers
    }
    return _enough(view, over)


def peers_succeeded(view: GangView) -> set[int]:
    """The siblings that have succeeded, and may have done so in one job with this node.

    Then this node need not wait for anybody: it will soon learn that the job succeeded. Their rerun
    token may be a later one: a node that was cleared while the others ran joined them again.
    """
    return {
        number
        for number in view.others
        if view.states.get(number) == "success"
        and (note := view.notes.get(number)) is not None
        and note.world_size > 0
        and _began(note.rerun_token) == _began(view.rerun_token)
    }


def started_nodes(view: GangView) -> tuple[int, ...]:
    """The other nodes that have a slot."""
    return tuple(number for number in view.others if view.states.get(number) in _STARTED)


def absent_nodes(view: GangView) -> dict[int, str | None] | None:
    """The nodes that have no slot, with their states, if this node cannot have a job without them;
    else None.
    """
    started = started_nodes(view)
    absent = {n: view.states.get(n) for n in view.others if n not in started}
    too_few = view.nodes - len(absent) < view.min_nodes
    return absent if too_few or view.server in absent else None


def describe_absent(view: GangView, absent: Mapping[int, str | None], pool: str) -> str:
    """Which nodes are absent and what that means, for people."""
    there = view.nodes - len(absent)
    if there < view.min_nodes:
        text = f"only {there} of the {view.min_nodes} nodes that the job needs are there"
    else:
        text = f"{there} nodes are there, but not the one that serves the job's ledger"
    return f"{text}; missing: {list_absent(absent, pool)}"


def list_absent(absent: Mapping[int, str | None], pool: str) -> str:
    """The absent nodes and what Airflow says of each, for people."""
    return ", ".join(
        f"node {number} ({_WAITING[state]} pool {pool!r})"
        if state in _WAITING
        else f"node {number} ({state})"
        for number, state in absent.items()
    )


def _enough(view: GangView, over: Mapping[int, str | None]) -> GangHopeless | None:
    """Nothing if enough nodes can still come, without those that are ``over``."""
    can_come = view.nodes - len(over)
    if can_come >= view.min_nodes:
        return None
    described = ", ".join(f"node {number} is {state}" for number, state in over.items())
    return GangHopeless(
        f"node {view.node} would wait in vain: the job needs {view.min_nodes} of {view.nodes} "
        f"nodes, and only {can_come} can still come ({described}). Clear the whole task, all its "
        "mapped instances, instead of this one alone",
        skipped=set(over.values()) <= {_SKIPPED, "success"} and _SKIPPED in over.values(),
    )


def _began(rerun_token: str) -> str:
    return rerun_token.partition("@")[2]


def _listed(numbers: Iterable[int]) -> str:
    return ", ".join(f"node {number}" for number in numbers)
