"""Pushes what the ranks returned to XCom; what Airflow does not take is kept on the worker's disk.

The job has succeeded when this runs, so that a failure here must not repeat it: it is a
``ResultError``, whose class has no retries by default.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from airflow_provider.results.reference import StoredResult, to_xcom
from llutil.errors import ResultError
from llutil.serialization.kept_value import keep_content

_log = logging.getLogger(__name__)

__all__ = ["push_results"]


def push_results(
    ti: Any, results: Mapping[int, Any], more: Mapping[str, Any], kept_folder: Path
) -> dict[str, Any]:
    """Push each rank's value under ``rank_<n>``, and ``more`` under its keys; returns the values,
    by rank as a string, for Airflow to push as ``return_value``.

    :raises ResultError: Airflow did not take something.
    """
    values: dict[str, Any] = {}
    not_allowed: set[str] = set()
    refused: list[str] = []
    for rank, result in results.items():
        try:
            value = to_xcom(result, not_allowed.add)
            ti.xcom_push(key=f"rank_{rank}", value=value)
            values[str(rank)] = value
        except Exception as error:  # noqa: BLE001 - the XCom backend may be the user's own
            kept = _kept(result, rank, kept_folder)
            refused.append(
                f"rank {rank}: Airflow did not take what it returned: {_told(error)}{kept}"
            )
    for name in sorted(not_allowed):
        _log.warning(
            "objects of %s are dicts of their fields in XCom: for objects in tasks downstream, add "
            "the class to [core] allowed_deserialization_classes",
            name,
        )
    for key, value in more.items():
        try:
            ti.xcom_push(key=key, value=value)
        except Exception as error:  # noqa: BLE001 - as above
            refused.append(f"Airflow did not take {key!r}: {_told(error)}")
    if refused:
        raise ResultError("\n".join(("the job has succeeded, but a result is missing:", *refused)))
    return values


def _kept(result: Any, rank: int, folder: Path) -> str:
    if isinstance(result, StoredResult):
        return f"; it is at {result.uri}"
    content = json.dumps(result).encode()
    return f"; {keep_content(content, folder, rank, pickled=False)}"


def _told(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"
