"""What Airflow's task SDK asks of the api-server, answered in this process and counted.

The task instances are the SDK's own: whatever they do costs the requests that it costs in a task.
"""

from __future__ import annotations

import uuid
from collections import Counter
from types import SimpleNamespace
from typing import Any

from airflow.sdk.exceptions import AirflowRuntimeError, ErrorType
from airflow.sdk.execution_time import comms, task_runner

__all__ = ["PlayedAirflow"]


class PlayedAirflow:
    """A DAG run with one mapped task, ``t``. ``states`` are those of its instances.

    ``requests`` counts what was asked, by the name of the message. While ``away``, each request is
    an error.
    """

    def __init__(self, states: list[str | None]) -> None:
        self.states = states
        self.requests: Counter[str] = Counter()
        self.away = False
        self._xcoms: dict[str, dict[int, Any]] = {}

    def instance(self, number: int) -> Any:
        """The task instance of that map index."""
        return task_runner.RuntimeTaskInstance.model_construct(
            id=uuid.uuid4(),
            task=SimpleNamespace(task_id="t", returns_dag_result=False),
            dag_id="d",
            task_id="t",
            run_id="r",
            map_index=number,
            try_number=1,
        )

    def pushed(self, key: str) -> dict[int, Any]:
        """What the instances have pushed under ``key``, by map index."""
        return self._xcoms.setdefault(key, {})

    def send(self, msg: Any, **_: Any) -> Any:
        """As the supervisor's socket does."""
        self.requests[type(msg).__name__] += 1
        if self.away:
            raise AirflowRuntimeError(comms.ErrorResponse(error=ErrorType.API_SERVER_ERROR))
        match msg:
            case comms.GetTaskStates():
                states = {f"t_{number}": state for number, state in enumerate(self.states)}
                return comms.TaskStatesResult(task_states={"r": states})
            case comms.GetXComSequenceSlice(key=key):
                return comms.XComSequenceSliceResult(root=list(self.pushed(key).values()))
            case comms.SetXCom(key=key, value=value, map_index=number):
                self.pushed(key)[number] = value
                return comms.OKResponse(ok=True)
            case _:
                raise NotImplementedError(msg)
