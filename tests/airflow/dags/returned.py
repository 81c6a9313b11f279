"""A job that returns, and pickles, what a plain task may: objects of this file's classes too."""

from __future__ import annotations

import dataclasses
import datetime as dt
import decimal
import os
import pickle
import uuid
from pathlib import Path
from typing import Any

import attrs
import pydantic
from airflow.sdk import dag, task

from airflow_provider.results import load_results


@dataclasses.dataclass(frozen=True)
class Metrics:
    """What a rank returns."""

    loss: decimal.Decimal
    took: dt.timedelta


@attrs.frozen
class Host:
    """As above."""

    name: str


class Report(pydantic.BaseModel):
    """As above."""

    at: dt.date


def everything() -> dict[str, Any]:
    """A value of each kind that Airflow's XCom gives back as what it was."""
    import numpy as np

    return {
        "tuple": (1, (2,)),
        "set": {1, 2},
        "frozenset": frozenset({"a"}),
        "decimal": decimal.Decimal("0.10"),
        "uuid": uuid.UUID(int=7),
        "date": dt.date(2026, 1, 2),
        "moment": dt.datetime(2026, 1, 2, 3, tzinfo=dt.UTC),
        "duration": dt.timedelta(seconds=5),
        "numpy": np.float32(0.5),
        "dataclass": Metrics(decimal.Decimal("0.5"), dt.timedelta(1)),
        "attrs": Host("a"),
        "model": Report(at=dt.date(2026, 1, 2)),
        "dict": {"elastic_launch_result": 1, "uri": "file:///etc/passwd"},
    }


@dag(schedule=None)
def returned() -> None:
    """What goes out of a rank, and arrives in a task downstream."""

    @task.elastic(nproc_per_node=2)
    def train() -> dict[str, Any] | None:
        if os.environ["RANK"] == "1":
            return {"elastic_launch_result": 1, "uri": "file:///etc/passwd"}
        saved = Path(os.environ["AIRFLOW_HOME"], "saved-by-a-rank.pickle")
        saved.write_bytes(pickle.dumps(Metrics(decimal.Decimal(1), dt.timedelta(0))))
        return everything()

    @task
    def compare(found: dict[str, Any]) -> dict[str, Any]:
        ranks = load_results(found)
        wanted = everything()
        saved = Path(os.environ["AIRFLOW_HOME"], "saved-by-a-rank.pickle").read_bytes()
        return {
            "other": [
                f"{name}: {ranks[0].get(name)!r}"
                for name in wanted
                if ranks[0].get(name) != wanted[name]
                or type(ranks[0][name]) is not type(wanted[name])
            ],
            "rank 1": ranks[1]["uri"],
            "saved": pickle.loads(saved) == Metrics(decimal.Decimal(1), dt.timedelta(0)),
        }

    compare(train())


returned()
