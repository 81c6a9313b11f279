"""A small client of Airflow's REST API, with the few calls that the tests need.

Every wait has a deadline, and the error of one that has passed shows the last lines of the logs of
the tasks that it waited for. This module may import nothing but the standard library and httpx.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self, TypeVar

import httpx

__all__ = ["Client", "Run", "Task", "wait"]

_BUSY = 15.0  # seconds; while others write, SQLite may refuse, and Airflow says 503
_DONE = frozenset({"success", "failed"})
_T = TypeVar("_T")


def wait(what: str, seconds: float, probe: Callable[[], _T | None], tail: Callable[[], str]) -> _T:
    """The first result of ``probe`` that is not None, asked for again and again, less and less
    often: an answer costs the api-server some hundredths of a second of a core.

    :raises TimeoutError: there was none in so many seconds; the text has ``what``, and ``tail()``.
    """
    deadline = time.monotonic() + seconds
    pause = 0.2
    while (found := probe()) is None:
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {seconds:.0f} s for {what}\n{tail()}")
        time.sleep(pause)
        pause = min(1.2 * pause, 1.0)
    return found


class Client:
    """One connection to the api-server at ``url``; a context manager that closes it. ``logs`` is
    the folder of the tasks' logs.
    """

    def __init__(self, url: str, logs: Path) -> None:
        self.logs = logs
        self._http = httpx.Client(base_url=url, timeout=30, trust_env=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def ask(self, method: str, path: str, **more: Any) -> Any:
        """The answer to a request under ``/api/v2``, as JSON; None if it is empty.

        :raises RuntimeError: the answer is an error; the text has the server's words.
        """
        answer = self._http.request(method, f"/api/v2/{path}", **more)
        until = time.monotonic() + _BUSY
        while answer.status_code == httpx.codes.SERVICE_UNAVAILABLE and time.monotonic() < until:
            time.sleep(0.4)
            answer = self._http.request(method, f"/api/v2/{path}", **more)
        if answer.is_error:
            raise RuntimeError(f"{method} {path}: {answer.status_code} {answer.text[:2000]}")
        return answer.json() if answer.content else None

    def healthy(self) -> bool:
        """Whether api-server, scheduler and dag-processor all say that they are well."""
        try:
            # Tasks speak to this part. Airflow builds it at the first request, which takes five
            # seconds or more, and tasks that have to wait for it give up (measured with Airflow
            # 3.3.2).
            self._http.get("/execution/health", timeout=90).raise_for_status()
            health = self._http.get("/api/v2/monitor/health").json()
        except (httpx.HTTPError, json.JSONDecodeError):
            return False
        parts = ("metadatabase", "scheduler", "dag_processor")
        return all(health.get(part, {}).get("status") == "healthy" for part in parts)

    def await_scheduler(self, seconds: float = 60) -> None:
        """Wait until the scheduler has finished what it is doing now.

        It ends with an error if a DAG run is deleted that it looks at in that moment (Airflow
        3.3.2).
        """
        now = datetime.now(UTC)

        def beat() -> str:
            scheduler = self._http.get("/api/v2/monitor/health").json()["scheduler"]
            return str(scheduler["latest_scheduler_heartbeat"])

        wait(
            "a heartbeat of the scheduler",
            seconds,
            lambda: True if datetime.fromisoformat(beat()) > now else None,
            beat,
        )

    def login(self, user: str, password: str) -> None:
        """Get a token, and send it with every later request."""
        answer = self._http.post("/auth/token", json={"username": user, "password": password})
        answer.raise_for_status()
        self._http.headers["Authorization"] = f"Bearer {answer.json()['access_token']}"

    def import_errors(self) -> dict[str, str]:
        """What went wrong in which DAG file, according to the dag-processor."""
        found = self.ask("GET", "importErrors", params={"limit": 100})["import_errors"]
        return {error["filename"]: error["stack_trace"] for error in found}

    def await_dags(self, *dag_ids: str, seconds: float = 60) -> None:
        """Wait until the dag-processor has read all these DAGs."""

        def missing() -> set[str]:
            listed = self.ask("GET", "dags", params={"limit": 100})["dags"]
            return set(dag_ids).difference(dag["dag_id"] for dag in listed)

        wait(
            f"DAGs {sorted(dag_ids)}",
            seconds,
            lambda: None if missing() else True,
            lambda: f"missing: {missing()}; import errors: {self.import_errors()}",
        )

    def trigger(
        self,
        dag_id: str,
        conf: Mapping[str, Any] | None = None,
        *,
        run_id: str | None = None,
        at: datetime | None = None,
    ) -> Run:
        """Start a run of a DAG, as one of now, or of the time ``at``; without a ``run_id``, Airflow
        makes one.
        """
        when = (at or datetime.now(UTC)).isoformat()
        body: dict[str, Any] = {"logical_date": when, "conf": dict(conf or {})}
        if at is not None:
            body["run_after"] = when
        if run_id is not None:
            body["dag_run_id"] = run_id
        answer = self.ask("POST", f"dags/{dag_id}/dagRuns", json=body)
        return Run(self, dag_id, answer["dag_run_id"])

    def backfill(self, dag_id: str, first: datetime, last: datetime, at_a_time: int) -> list[Run]:
        """Make the runs of a DAG for that time, so many at a time; all of them."""
        body = {
            "dag_id": dag_id,
            "from_date": first.isoformat(),
            "to_date": last.isoformat(),
            "max_active_runs": at_a_time,
        }
        self.ask("POST", "backfills", json=body)
        found = self.ask("GET", f"dags/{dag_id}/dagRuns", params={"run_type": "backfill"})
        return [Run(self, dag_id, run["dag_run_id"]) for run in found["dag_runs"]]


@dataclass(frozen=True, slots=True)
class Run:
    """A run of a DAG."""

    client: Client
    dag_id: str
    run_id: str

    @property
    def path(self) -> str:
        """Its address below ``/api/v2``."""
        return f"dags/{self.dag_id}/dagRuns/{self.run_id}"

    def task(self, task_id: str, map_index: int = -1) -> Task:
        """One of its task instances."""
        return Task(self, task_id, map_index)

    def tasks(self) -> list[Task]:
        """All of its task instances."""
        found = self.client.ask("GET", f"{self.path}/taskInstances", params={"limit": 100})
        return [Task(self, ti["task_id"], ti["map_index"]) for ti in found["task_instances"]]

    def tail(self) -> str:
        """The last lines of its tasks' logs, those that did not succeed first."""
        tasks = sorted(self.tasks(), key=lambda task: task.state() == "success")
        return "\n".join(task.tail() for task in tasks[:5])

    def state(self) -> str:
        """Its state now."""
        return str(self.client.ask("GET", self.path)["state"])

    def finish(self, wanted: str | None = "success", seconds: float = 180) -> Run:
        """Wait until it has ended.

        :raises AssertionError: it ended in another state than ``wanted``, if one is.
        """
        state = wait(
            f"the end of {self.dag_id} {self.run_id}",
            seconds,
            lambda: state if (state := self.state()) in _DONE else None,
            self.tail,
        )
        if wanted not in {None, state}:
            raise AssertionError(f"{self.dag_id} is {state}, wanted {wanted}\n{self.tail()}")
        return self

    def mark(self, state: str) -> None:
        """Say that it has succeeded or failed, as a user does who presses the button."""
        self.client.ask("PATCH", self.path, json={"state": state})

    def end(self) -> None:
        """Mark it failed if it has not ended: its test was not selected, or has failed."""
        if self.state() not in _DONE:
            self.mark("failed")

    def delete(self) -> None:
        """Delete it, which Airflow allows once it has ended."""
        self.client.ask("DELETE", self.path)

    def clear(self, *task_ids: str) -> None:
        """Clear tasks of it, so that they run again."""
        body = {
            "dry_run": False,
            "dag_run_id": self.run_id,
            "task_ids": list(task_ids),
            "only_failed": False,
            "include_downstream": True,
        }
        self.client.ask("POST", f"dags/{self.dag_id}/clearTaskInstances", json=body)


@dataclass(frozen=True, slots=True)
class Task:
    """One task instance of a run; ``map_index`` is -1 unless it is mapped."""

    run: Run
    task_id: str
    map_index: int = -1

    @property
    def path(self) -> str:
        """Its address below ``/api/v2``."""
        return f"{self.run.path}/taskInstances/{self.task_id}"

    def facts(self) -> dict[str, Any]:
        """What the server knows about it now: state, try_number, pid, ..."""
        index = "" if self.map_index < 0 else f"/{self.map_index}"
        facts: dict[str, Any] = self.run.client.ask("GET", f"{self.path}{index}")
        return facts

    def state(self) -> str | None:
        """Its state now."""
        state: str | None = self.facts()["state"]
        return state

    def await_state(self, *states: str, seconds: float = 90) -> str:
        """Wait until it is in one of these states; say in which."""
        return wait(
            f"{self.task_id} to be {' or '.join(states)}",
            seconds,
            lambda: state if (state := self.state()) in states else None,
            self.tail,
        )

    def await_try(self, number: int, seconds: float = 90) -> None:
        """Wait until its try of that number has begun."""
        wait(
            f"try {number} of {self.task_id}",
            seconds,
            lambda: True if self.facts()["try_number"] >= number else None,
            self.tail,
        )

    def mark(self, state: str) -> None:
        """Say that it has succeeded or failed, as a user does who presses the button."""
        index = "" if self.map_index < 0 else f"/{self.map_index}"
        self.run.client.ask("PATCH", f"{self.path}{index}", json={"new_state": state})

    def clear(self) -> None:
        """Clear this task instance alone, and no other of its task."""
        wanted = self.task_id if self.map_index < 0 else [self.task_id, self.map_index]
        body = {
            "dry_run": False,
            "dag_run_id": self.run.run_id,
            "task_ids": [wanted],
            "only_failed": False,
        }
        self.run.client.ask("POST", f"dags/{self.run.dag_id}/clearTaskInstances", json=body)

    def xcoms(self) -> dict[str, Any]:
        """All values that it has pushed, by key; links for the UI are left out."""
        at = {"map_index": self.map_index}
        listed = self.run.client.ask("GET", f"{self.path}/xcomEntries", params=at)["xcom_entries"]
        return {
            entry["key"]: self.run.client.ask(
                "GET", f"{self.path}/xcomEntries/{entry['key']}", params=at
            )["value"]
            for entry in listed
            if entry["map_index"] == self.map_index and not entry["key"].startswith("_link_")
        }

    def stored(self) -> dict[str, Any]:
        """What is in its state, by key."""
        asked = {"map_index": self.map_index, "limit": 100}
        found = self.run.client.ask("GET", f"{self.path}/state-store", params=asked)
        return {entry["key"]: entry["value"] for entry in found["task_state_store"]}

    def store(self, key: str, value: Any) -> None:
        """Set a key of its state, as a user does in the UI."""
        at = {"map_index": self.map_index}
        path = f"{self.path}/state-store/{key}"
        self.run.client.ask("PUT", path, params=at, json={"value": value})

    def await_stored(self, key: str, wanted: str, seconds: float = 60) -> Any:
        """Wait until ``wanted`` is in that key of its state; its value."""
        return wait(
            f"{wanted!r} in {key!r} of the state of {self.task_id}",
            seconds,
            lambda: value if wanted in str(value := self.stored().get(key)) else None,
            lambda: f"{self.stored()}\n{self.tail()}",
        )

    def log(self, try_number: int | None = None) -> list[dict[str, Any]]:
        """The records of its log, of the last try if not said otherwise; each has at least
        ``event``.
        """
        number = try_number if try_number is not None else self.facts()["try_number"]
        if number == 0:  # it has not been tried yet
            return []
        content = self.run.client.ask(
            "GET",
            f"{self.path}/logs/{number}",
            params={"full_content": True, "map_index": self.map_index},
            headers={"Accept": "application/json"},
        )["content"]
        return [record if isinstance(record, dict) else {"event": record} for record in content]

    def text(self, try_number: int | None = None) -> str:
        """Its log as text: each line of a record with the level in front, and error details below
        it.
        """
        lines = []
        for record in self.log(try_number):
            level = record.get("level", "-")
            lines += [f"{level:8}{line}" for line in str(record["event"]).split("\n")]
            lines += [
                f"        {error.get('exc_type')}: {error.get('exc_value')}"
                for error in record.get("error_detail") or []
            ]
        return "\n".join(lines)

    def await_text(self, wanted: str, seconds: float = 90, try_number: int | None = None) -> None:
        """Wait until ``wanted`` is somewhere in its log: the api-server is asked if that grows."""
        before = 0

        def there() -> bool | None:
            nonlocal before
            size = self._logged()
            if size and size == before:
                return None
            before = size
            return True if wanted in self.text(try_number) else None

        wait(f"{wanted!r} in the log of {self.task_id}", seconds, there, self.tail)

    def _logged(self) -> int:
        """How many bytes are in the log files of its tries, wherever these are read here."""
        index = "" if self.map_index < 0 else f"map_index={self.map_index}"
        run = self.run.client.logs / f"dag_id={self.run.dag_id}" / f"run_id={self.run.run_id}"
        files = (run / f"task_id={self.task_id}" / index).glob("attempt=*.log")
        return sum(file.stat().st_size for file in files)

    def tail(self, lines: int = 40) -> str:
        """Its state and the last lines of its log."""
        text = "(no log)"
        with suppress(RuntimeError):  # there is no log before the task has started
            text = "\n".join(self.text().splitlines()[-lines:])
        name = self.task_id if self.map_index < 0 else f"{self.task_id}[{self.map_index}]"
        return f"--- {self.run.dag_id}.{name}, {self.state()}:\n{text}"
