"""What all ranks of a gang returned, for tasks downstream of it.

    @task
    def compare(ti=None):
        ranks = gang_results("train", ti)   # {0: ..., 1: ..., 2: ..., 3: ...}

Each node of a gang pushes what its own ranks returned. ``gang_results`` merges that, and requires
the value of every rank: in Airflow's own list of the mapped instances' values nobody would notice
that one is missing. Values under a ``results_path`` are fetched. ``load_result`` and
``load_results`` do that for a task that is not a gang.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from airflow_provider.gang.node import states_of
from airflow_provider.gang.success_note import SuccessNote, notes_of
from airflow_provider.results.reference import StoredResultError, load_result, load_results

__all__ = [
    "MissingRankError",
    "StoredResultError",
    "gang_results",
    "load_result",
    "load_results",
    "merge_results",
]


class MissingRankError(LookupError):
    """The value of a rank is missing; the text names the rank and its node.

    What to do: see how that node's task ended; clear the whole task to train again.
    """


def gang_results(task_id: str, ti: Any, *, load: bool = True) -> dict[int, Any]:
    """What every rank of the gang ``task_id`` returned, by rank, from all of its nodes.

    ``task_id`` is the full id, with those of its task groups. ``ti`` is the calling task's own
    instance, from its context. With ``load=False`` stored values are not fetched: ``load_result``
    fetches one.

    :raises MissingRankError: the value of a rank is missing, or the task is not a gang that has
        succeeded.
    :raises StoredResultError: a stored value is gone; its URI names the node and the rank.
    """
    notes = notes_of(ti, task_id)
    if not notes:
        raise MissingRankError(
            f"task {task_id!r} has left no results of a gang; wanted the id of a task made by "
            ".gang() or @task.elastic(gang=...), that has succeeded"
        )
    noted = sorted(notes)
    values = ti.xcom_pull(task_ids=task_id, map_indexes=noted)
    nodes = max(note.nodes for note in notes.values())
    results = merge_results(
        task_id, notes, dict(zip(noted, values, strict=True)), states_of(ti, task_id, nodes)
    )
    return {rank: load_result(value) for rank, value in results.items()} if load else results


def merge_results(
    task_id: str,
    notes: Mapping[int, SuccessNote],
    values: Mapping[int, Any],
    states: Mapping[int, str | None],
) -> dict[int, Any]:
    """The values of all ranks, from the nodes' notes, return values and states, all by node.

    After a part of a gang was cleared and run again, notes of an earlier launch may still be there.
    The latest launch counts. A note of an earlier launch counts if its ranks fit in.

    :raises MissingRankError: a rank's value is missing.
    """
    ran = [note for note in notes.values() if note.world_size > 0]
    if not ran:
        raise MissingRankError(f"no node of {task_id!r} has left results")
    ran.sort(key=lambda note: _age(note.rerun_token), reverse=True)
    world_size = ran[0].world_size
    owner: dict[int, int] = {}
    for note in ran:
        if note.world_size == world_size and owner.keys().isdisjoint(note.ranks):
            owner |= dict.fromkeys(note.ranks, note.node)
    if missing := sorted(set(range(world_size)) - owner.keys()):
        without_ranks = [
            f"node {number} ({states.get(number) or 'not started'})"
            for number in sorted(states)
            if number not in owner.values()
        ]
        raise MissingRankError(
            f"{_ranks(missing)} of {world_size} of {task_id!r} left no value: it was on "
            f"{' or '.join(without_ranks)}; clear the whole task, all its mapped instances"
        )
    results = {}
    for rank in range(world_size):
        value = values.get(owner[rank])
        if not isinstance(value, Mapping) or str(rank) not in value:
            raise MissingRankError(
                f"rank {rank} of {task_id!r} left no value: node {owner[rank]} has pushed no "
                "results, as with do_xcom_push=False"
            )
        results[rank] = value[str(rank)]
    return results


def _age(rerun_token: str) -> tuple[str, int]:
    clear_number, _, started = rerun_token.partition("@")
    return started, int(clear_number) if clear_number.isdecimal() else 0


def _ranks(numbers: Sequence[int]) -> str:
    return f"{'rank' if len(numbers) == 1 else 'ranks'} {', '.join(map(str, numbers))}"
