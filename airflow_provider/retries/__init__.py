"""Decides what follows a failure: another launch within the try, another try, or the end.

``LaunchRetry`` repeats a launch inside one try. ``ElasticRetryPolicy`` decides on Airflow's next
try, by a ``RetryRow`` for each class of failure. The room may import plain values of ``llutil``.
It does not find out what went wrong: it gets that as a value. Names are resolved when they are
first used (PEP 562).
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airflow_provider.retries.launch_retry import LaunchRetry
    from airflow_provider.retries.policy import ElasticRetryPolicy
    from airflow_provider.retries.rules import RetryRow

__all__ = ["ElasticRetryPolicy", "LaunchRetry", "RetryRow"]

_HOMES = {
    "ElasticRetryPolicy": "airflow_provider.retries.policy",
    "LaunchRetry": "airflow_provider.retries.launch_retry",
    "RetryRow": "airflow_provider.retries.rules",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
