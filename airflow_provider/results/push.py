"""Pushes what the ranks returned to XCom; what Airflow does not take is kept on the worker's disk.

The job has succeeded when this runs, so that a failure here must not repeat it: it is a
``ResultError``, whose class has no retries by default. While Airflow's API server is away, each
value is pushed again and again, as long as Airflow lets the task live.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tenacity
from airflow.sdk.exceptions import AirflowRuntimeError, ErrorType

from airflow_provider.results.reference import StoredResult, to_xcom
from llutil.errors import ResultError
from llutil.serialization.kept_value import keep_content
from llutil.task_link.messages import ResultInFile

_log = logging.getLogger(__name__)

__all__ = ["keep_unpushed", "push_results"]

_PATIENCE = 600.0
"""For how many seconds values are pushed again, all together. Airflow ends a task long before that,
unless it is set up to wait: ``[workers] max_failed_heartbeats``.
"""
_FIRST_PAUSE, _LONGEST_PAUSE = 1.0, 10.0
"""Seconds until the next attempt. The supervisor of the task makes each of them several times, and
has to have time for its heartbeats between them (Airflow 3.3).
"""


def push_results(
    ti: Any, results: Mapping[int, Any], more: Mapping[str, Any], kept_folder: Path
) -> dict[str, Any]:
    """Push each rank's value under ``rank_<n>``, and ``more`` under its keys; returns the values,
    by rank as a string, for Airflow to push as ``return_value``. Values that Airflow does not take,
    or that are not pushed yet when the alarm of ``execution_timeout`` comes, are kept in
    ``kept_folder``.

    :raises ResultError: Airflow did not take something.
    """
    values: dict[str, Any] = {}
    not_allowed: set[str] = set()
    refused: list[str] = []
    until = time.monotonic() + _PATIENCE
    for rank, result in results.items():
        try:
            value = to_xcom(result, not_allowed.add)
            _push(ti, f"rank_{rank}", value, until)
            values[str(rank)] = value
        except Exception as error:  # noqa: BLE001 - the XCom backend may be the user's own
            kept = _kept(result, rank, kept_folder)
            refused.append(
                f"rank {rank}: Airflow did not take what it returned: {_told(error)}{kept}"
            )
        except BaseException:
            left = {one: what for one, what in results.items() if str(one) not in values}
            keep_unpushed(left, kept_folder)
            raise
    for name in sorted(not_allowed):
        _log.warning(
            "objects of %s are dicts of their fields in XCom: for objects in tasks downstream, add "
            "the class to [core] allowed_deserialization_classes",
            name,
        )
    for key, value in more.items():
        try:
            _push(ti, key, value, until)
        except Exception as error:  # noqa: BLE001 - as above
            refused.append(f"Airflow did not take {key!r}: {_told(error)}")
    if refused:
        raise ResultError("\n".join(("the job has succeeded, but a result is missing:", *refused)))
    return values


def keep_unpushed(results: Mapping[int, Any], folder: Path) -> None:
    """Write those of ``results`` that are in no file yet into ``folder``, and log where they are.
    Those in the agent's file of results are left to ``keep_unstored``, which can read it.
    """
    for rank, result in results.items():
        if result is not None and not isinstance(result, ResultInFile):
            where = _kept(result, rank, folder)
            _log.warning("rank %d: what it returned is not in XCom%s", rank, where)


def _push(ti: Any, key: str, value: Any, until: float) -> None:
    """Push the value; again, until that time of the monotonic clock, while the server is away. That
    it was stored, although the answer was lost, does no harm: it is stored again in its place.
    """
    retrying = tenacity.Retrying(
        retry=tenacity.retry_if_exception(_says_server_is_away),
        wait=tenacity.wait_random_exponential(min=_FIRST_PAUSE, max=_LONGEST_PAUSE),
        stop=lambda _state: time.monotonic() >= until,
        before_sleep=lambda state: _say_again(key, state),
        reraise=True,
    )
    retrying(ti.xcom_push, key=key, value=value)


def _says_server_is_away(error: BaseException) -> bool:
    """Whether the supervisor of the task could not reach Airflow's API server, or that could not
    answer. Errors in a user's own XCom backend are none of these.
    """
    if not isinstance(error, AirflowRuntimeError):
        return False
    if error.error.error is not ErrorType.API_SERVER_ERROR:
        return False
    detail = error.error.detail or {}
    status = detail.get("status_code")
    if status is not None:
        return bool(status >= 500)
    import httpx

    kind = getattr(httpx, str(detail.get("exception_type")), None)
    return isinstance(kind, type) and issubclass(kind, httpx.RequestError)


def _say_again(key: str, state: tenacity.RetryCallState) -> None:
    assert state.outcome is not None
    assert state.next_action is not None
    _log.warning(
        "%r could not be pushed; the next attempt follows in %.1f s. %s",
        key,
        state.next_action.sleep,
        state.outcome.exception(),
    )


def _kept(result: Any, rank: int, folder: Path) -> str:
    if isinstance(result, StoredResult):
        return f"; it is at {result.uri}"
    content = json.dumps(result).encode()
    return f"; {keep_content(content, folder, rank, pickled=False)}"


def _told(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"
