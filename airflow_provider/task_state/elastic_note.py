"""The value of the key ``elastic``: all that a person wants to see of a node of a running job.

These functions make the value of what they are given. ``note_size`` sees to it that it stays small.
This module may import the standard library, msgspec, the values of ``llutil``, and of its room what
is below it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgspec

from airflow_provider.task_state.curves import MOST_POINTS, continued, thinned
from airflow_provider.task_state.elastic_form import VERSION, Earlier, RoundNote
from airflow_provider.task_state.note_size import fitted, shown
from airflow_provider.task_state.seen_rounds import MOST_COMMITTED, MOST_ROUNDS, Seen
from llutil.agent_socket.messages import RankStatus
from llutil.failure import JobFailure

__all__ = ["Ended", "LaunchFacts", "elastic_note"]


@dataclass(frozen=True, slots=True, kw_only=True)
class LaunchFacts:
    """What a task knows before its job begins. ``folder`` is where the job's checkpoints are, empty
    if it has no place for them, and None if that is not known; ``resume`` is the parameter of that
    name.
    """

    try_number: int
    run_id: str = ""
    backend: str = ""
    label: str = ""
    min_nodes: int = 1
    max_nodes: int = 1
    folder: str | None = ""
    resume: str = "auto"


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """How a try ended: in words, and by which failure, if the job has failed. ``goes_on``: this try
    begins again later, once it has a slot.
    """

    outcome: str
    succeeded: bool = False
    failure: JobFailure | None = None
    report: str = ""
    goes_on: bool = False


def elastic_note(
    facts: LaunchFacts,
    seen: Seen,
    earlier: Earlier,
    ended: Ended | None,
    *,
    every: float,
    hide: Callable[[str], str],
    limit: int,
) -> dict[str, Any]:
    """The value, at most ``limit`` bytes of JSON. ``hide`` takes secrets out of a text. ``every``
    is how often it is written, in seconds.
    """
    status = seen.status
    over = ended is not None and not ended.goes_on
    had_agent = bool(status.entrypoint)
    note: dict[str, Any] = {
        "version": VERSION,
        "time": seen.time,
        "every": every,
        "try": facts.try_number,
        "run_id": status.run_id or facts.run_id,  # each launch of a try may have its own
        "backend": facts.backend,
        "host": status.host,
        "label": facts.label or status.label,
        "node": seen.running.node,
        "nodes": seen.running.nodes if had_agent else None,
        "min_nodes": facts.min_nodes,
        "max_nodes": facts.max_nodes,
        "world_size": seen.running.world_size if had_agent else None,
        "restarts": status.restarts if had_agent else None,
        "max_restarts": status.max_restarts if had_agent else None,
        "doing": "ended" if over else "waits" if ended is not None else str(status.state),
        "detail": status.detail,
        "outcome": ended.outcome if ended is not None else "",
        "succeeded": ended.succeeded if over and ended is not None else None,
        "entrypoint": status.entrypoint,
        "seconds": round(seen.spent.seconds if seen.spent else status.seconds, 1)
        if had_agent
        else None,
        "rate": None if over else _rounded(status.rate),
        "seconds_left": None if over else _rounded(status.seconds_left),
        "ranks": [_rank(rank) for rank in seen.ranks],
        "rounds": _rounds(seen, earlier),
        "curves": _curves(seen, earlier),
        "checkpoints": _checkpoints(facts, seen, earlier, ended),
        "failure": _failure(seen, ended),
        "account": _account(seen),
        "left_out": [],
    }
    if seen.more_rounds or len(earlier.rounds) + len(seen.rounds) > MOST_ROUNDS:
        note["left_out"].append("rounds")
    if seen.more_metrics:
        note["left_out"].append("curves")
    return fitted(shown(note, hide), limit)


def _rank(rank: RankStatus) -> dict[str, Any]:
    silent = None if rank.silent is None else round(rank.silent, 1)
    return {**msgspec.to_builtins(rank), "silent": silent}


def _rounds(seen: Seen, earlier: Earlier) -> list[dict[str, Any]]:
    before = [_closed(one, earlier.time) for one in earlier.rounds]
    rounds = [*before, *seen.rounds][-MOST_ROUNDS:]
    return [msgspec.to_builtins(one) for one in rounds]


def _curves(seen: Seen, earlier: Earlier) -> dict[str, Any]:
    curves = continued(earlier.curves.metrics, seen.metrics)
    return {"metrics": {name: thinned(points, MOST_POINTS) for name, points in curves.items()}}


def _closed(one: RoundNote, time: str) -> RoundNote:
    """A round of an earlier try, which cannot run any more."""
    if one.ended is not None:
        return one
    why = one.why or "its task was gone before it could say how the round ended"
    return msgspec.structs.replace(one, ended=time or one.began, end=one.end or "lost", why=why)


def _checkpoints(
    facts: LaunchFacts, seen: Seen, earlier: Earlier, ended: Ended | None
) -> dict[str, Any]:
    before = earlier.checkpoints.committed
    if earlier.succeeded and facts.resume != "always":
        before = ()  # the job has begun afresh
    first = min((one.step for one in seen.committed), default=math.inf)
    kept = [*(one for one in before if one.step < first), *seen.committed][-MOST_COMMITTED:]
    following = kept[-1].step if kept else seen.resumed_from
    succeeded = ended is not None and ended.succeeded
    if facts.resume == "never" or (succeeded and facts.resume != "always"):
        following = None
    return {
        "folder": facts.folder,
        "resumed_from": seen.resumed_from,
        "committed": [msgspec.to_builtins(one) for one in kept],
        "next": following,
    }


def _failure(seen: Seen, ended: Ended | None) -> dict[str, Any] | None:
    if ended is not None and (ended.succeeded or ended.goes_on):
        return None
    failed = seen.failed
    told = ended.failure if ended is not None else failed.failure if failed else None
    if told is None:
        return None
    first = told.failure
    ranks = [
        {
            "rank": one.rank,
            "host": one.host,
            "exit": one.status,
            "why": one.why,
            "culprit": first is not None and one.rank == first.rank,
        }
        for one in (failed.ranks if failed else ())
    ]
    if first is not None and not any(one["culprit"] for one in ranks):
        culprit = {"rank": first.rank, "host": first.host, "exit": first.exit_status}
        ranks.insert(0, {**culprit, "why": first.reason, "culprit": True})
    return {
        "class": str(told.failure_class),
        "why": told.why,
        "fatal": told.fatal,
        "rank": None if first is None else first.rank,
        "host": "" if first is None else first.host,
        "node": "" if first is None else first.node,
        "time": seen.time if ended is not None else seen.failed_at,
        "report": ended.report if ended is not None else "",
        "ranks": ranks,
    }


def _account(seen: Seen) -> dict[str, Any] | None:
    spent = seen.spent
    if spent is None:
        return None
    share = spent.training_share
    return {
        "seconds": round(spent.seconds, 1),
        "training_percent": None if share is None else round(100 * share, 1),
        "restarts": spent.restarts,
        "text": spent.text,
    }


def _rounded(value: float | None) -> float | None:
    if value is None or not math.isfinite(value):
        return None
    return float(f"{value:.4g}")
