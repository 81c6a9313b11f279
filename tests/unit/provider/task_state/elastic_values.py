"""Values of a job that is seen, for tests of the key ``elastic``."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable
from typing import Any

from airflow_provider.task_state.elastic_note import Ended, LaunchFacts, elastic_note
from airflow_provider.task_state.seen_rounds import SeenRounds
from llutil.agent_socket.messages import JobStatus, RankStatus, State
from llutil.agent_socket.round_end import RankEnd, RoundEnd, RoundEndKind
from llutil.failure import Failure, FailureClass, JobFailure
from llutil.task_link.job_events import JobEvent, NodeStatus, Progress, RoundBegan, RoundEnded

NOON = dt.datetime(2026, 11, 29, 12, tzinfo=dt.UTC)
FACTS = LaunchFacts(
    try_number=2, run_id="r", backend="etcd-v3", label="t.0", min_nodes=1, max_nodes=2, folder="/c"
)


def later(seconds: float) -> dt.datetime:
    """That many seconds after noon."""
    return NOON + dt.timedelta(seconds=seconds)


def ranks_of(*steps: int | None) -> tuple[RankStatus, ...]:
    """Local ranks that are at ``steps``."""
    return tuple(
        RankStatus(
            rank=rank,
            local_rank=rank,
            pid=100 + rank,
            step=step,
            total=10,
            doing="steps",
            silent=None if step is None else 0.25,
        )
        for rank, step in enumerate(steps)
    )


def status(*steps: int | None, **fields: Any) -> NodeStatus:
    """What a node says whose ranks are at ``steps``; without steps, one that waits."""
    plain: dict[str, Any] = {
        "run_id": "r",
        "pid": 7,
        "host": "host-a",
        "entrypoint": "train:main",
        "state": State.RUNS if steps else State.WAITS,
        "nodes": 2 if steps else 0,
        "world_size": 2 * len(steps),
        "restarts": 0,
        "max_restarts": 3,
        "seconds": 60.0,
        "node": 0 if steps else None,
        "ranks": ranks_of(*steps),
        "step": min((step for step in steps if step is not None), default=None),
        "round": 1,
        "members": ("t.0", "t.1") if steps else (),
    }
    return NodeStatus(JobStatus(**plain | fields))


def failure(rank: int = 1, why: str = "ValueError: boom", host: str = "host-a") -> JobFailure:
    """A job that failed by that rank."""
    return JobFailure.of(
        Failure(
            rank=rank,
            local_rank=0,
            pid=1,
            exit_status=1,
            failure_class=FailureClass.USER_CODE,
            reason=why,
            host=host,
        )
    )


def failed(rank: int = 1, *others: int) -> RoundEnded:
    """A round that ended by ``rank``; then ``others`` failed too."""
    told = failure(rank)
    ranks = [RankEnd(rank=rank, host="host-a", status=1, why="ValueError: boom", culprit=True)]
    ranks += [RankEnd(rank=one, host="host-a", status=-6, why="peer gone") for one in others]
    return RoundEnded(
        RoundEnd(kind=RoundEndKind.FAILURE, why=told.why, failure=told, ranks=tuple(ranks))
    )


def a_round(*steps: int) -> list[JobEvent]:
    """A round whose two ranks were at ``steps`` one after the other."""
    told: list[JobEvent] = [RoundBegan(0, 4, (0, 1)), status(None, None)]
    return told + [Progress({0: (step, 10), 1: (step, 10)}, {"loss": 1 / step}) for step in steps]


def heard(events: Iterable[JobEvent], try_number: int = 2) -> SeenRounds:
    """What is seen after ``events``, one in a second from noon on."""
    seen = SeenRounds(try_number)
    for second, event in enumerate(events):
        seen.hear(event, later(second))
    return seen


def note_of(
    events: Iterable[JobEvent], ended: Ended | None = None, earlier: Any = None, **options: Any
) -> dict[str, Any]:
    """The value of the key after ``events``."""
    from airflow_provider.task_state.elastic_form import read_earlier
    from airflow_provider.task_state.note_size import LIMIT

    seen = heard(events).seen()
    assert seen is not None
    facts = options.pop("facts", FACTS)
    plain: dict[str, Any] = {"every": 5.0, "hide": str, "limit": LIMIT}
    return elastic_note(facts, seen, read_earlier(earlier), ended, **plain | options)
