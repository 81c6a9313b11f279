"""The stream of jobs: so many at a time, each a run of a DAG of ``dags``, until it is told to end.

It has a thread of its own, since Airflow's API may be away for a while. This module may import
nothing but the standard library, httpx, ``tests.airflow`` and its neighbours here.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx

from tests.airflow.client import Run
from tests.soak.deployment import Deployment
from tests.soak.plan import STEP, JobPlan

__all__ = ["Job", "Jobs"]

_AT_A_TIME = 4
_PAUSE = 0.5
_AWAY = (httpx.HTTPError, RuntimeError)
"""What a request raises while the api-server is away, or says that it cannot answer now."""


@dataclass(slots=True)
class Job:
    """A job that was started. ``folder`` is where its ranks write down what they do. Once it has
    ended: the ``state`` of its run, how many ``seconds`` that took, and what each of its tasks'
    state in Airflow says of its end, with the number of the task's tries.
    """

    plan: JobPlan
    folder: Path
    run: Run
    state: str = ""
    seconds: float = 0.0
    tasks: list[dict[str, Any]] = field(default_factory=list)

    @property
    def name(self) -> str:
        """What it is called in reports."""
        return f"job {self.plan.number} ({self.plan.kind})"


class Jobs:
    """The stream. ``all`` are the jobs so far."""

    def __init__(self, there: Deployment, plan: Iterator[JobPlan]) -> None:
        self.all: list[Job] = []
        self._there, self._plan = there, plan
        self._ends = threading.Event()
        self._thread = threading.Thread(target=self._run, name="jobs")
        self._error: BaseException | None = None
        (there.folder / "jobs").mkdir()
        self._thread.start()

    def running(self) -> list[str]:
        """The folders of those that have not ended."""
        return [str(job.folder) for job in [*self.all] if not job.state]

    def end(self) -> None:
        """Start no more of them."""
        self._ends.set()

    @property
    def over(self) -> bool:
        """Whether all have ended.

        :raises RuntimeError: the stream itself went wrong.
        """
        if self._error is not None:
            raise RuntimeError("the stream of jobs broke") from self._error
        return self._ends.is_set() and not self._thread.is_alive()

    def close(self, seconds: float) -> None:
        """Wait for them for so long; what runs then has not ended."""
        self._ends.set()
        self._thread.join(seconds)

    def give_up(self) -> None:
        """Look at them no more."""
        self._plan = iter(())
        self._ends.set()
        for job in self.all:
            job.state = job.state or "unfinished"
        self._thread.join()

    def _run(self) -> None:
        try:
            waiting: JobPlan | None = None
            while not self._ends.is_set() or self.running():
                for job in self.all:
                    if not job.state:
                        with suppress(*_AWAY):
                            self._look_at(job)
                if not self._ends.is_set() and len(self.running()) < _AT_A_TIME:
                    waiting = waiting or next(self._plan)
                    with suppress(*_AWAY):
                        self._start(waiting)
                        waiting = None
                else:
                    time.sleep(_PAUSE)
        except BaseException as error:
            self._error = error

    def _start(self, plan: JobPlan) -> None:
        folder = self._there.folder / "jobs" / f"job-{plan.number}"
        folder.mkdir(exist_ok=True)
        client, name = self._there.server.client, folder.name
        conf = {
            "folder": str(folder),
            "checkpoints": str(self._there.checkpoints),
            "samples": plan.samples,
            "seconds": STEP,
        }
        run = Run(client, plan.kind, name)
        try:
            client.trigger(plan.kind, conf, run_id=name)
        except _AWAY:
            run.state()  # it was made all the same, or this raises
        self.all.append(Job(plan, folder, run))

    def _look_at(self, job: Job) -> None:
        facts = job.run.client.ask("GET", job.run.path)
        if facts["state"] not in {"success", "failed"}:
            return
        job.tasks = []
        for task in job.run.tasks():
            found = task.facts()
            note = task.stored().get("elastic") or {}
            kept = {key: note.get(key) for key in ("outcome", "succeeded", "failure", "account")}
            told = {key: found[key] for key in ("map_index", "state", "try_number")}
            job.tasks.append(told | kept)
        began, ended = (datetime.fromisoformat(facts[key]) for key in ("start_date", "end_date"))
        job.seconds = (ended - began).total_seconds()
        job.state = facts["state"]
