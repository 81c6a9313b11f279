"""Tells a connection that Airflow does not have from one that it could not look up just now.

A lookup in a task asks one secrets backend after the other, and takes a backend that failed for one
that has no such connection (Airflow 3.3). Airflow is imported inside functions.
"""

from __future__ import annotations

from typing import Any

__all__ = ["NOT_SAID", "connection_is_missing"]

NOT_SAID = "it found none, but its API or a secrets backend may have failed"
"""Why a connection that was not found is not called missing, in words for people."""

_OWN_BACKENDS = frozenset({"EnvironmentVariablesBackend", "ExecutionAPISecretsBackend"})
"""The secrets backends that a task has in every deployment. The first one cannot fail."""


def connection_is_missing(conn_id: str) -> bool:
    """Whether Airflow says that it has no connection ``conn_id``, after a lookup that found none.

    It asks Airflow's API once more, if this process has a supervisor. The answer is False if the
    API does not say so, or if another secrets backend may have failed.
    """
    from airflow.sdk.exceptions import ErrorType
    from airflow.sdk.execution_time import task_runner
    from airflow.sdk.execution_time.comms import ErrorResponse
    from airflow.sdk.execution_time.supervisor import ensure_secrets_backend_loaded

    try:
        backends = {type(backend).__name__ for backend in ensure_secrets_backend_loaded()}
        if not backends <= _OWN_BACKENDS:
            return False
        supervisor = getattr(task_runner, "SUPERVISOR_COMMS", None)
        if supervisor is None:
            return True  # the environment alone was asked
        answer = _ask(supervisor, conn_id)
    except Exception:  # noqa: BLE001 - whatever was raised, nobody has said that there is none
        return False
    return isinstance(answer, ErrorResponse) and answer.error == ErrorType.CONNECTION_NOT_FOUND


def _ask(supervisor: Any, conn_id: str) -> Any:
    """What Airflow's API answers. A supervisor hands an error on as a value or by raising it."""
    from airflow.sdk.exceptions import AirflowRuntimeError
    from airflow.sdk.execution_time.comms import GetConnection

    try:
        return supervisor.send(GetConnection(conn_id=conn_id))
    except AirflowRuntimeError as error:
        return error.error
