"""Where the values of a task's ranks go, by the operator's rendered parameters."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from airflow_provider.results.object_store import ResultStore, configured_path
from llutil.errors import ConfigError

if TYPE_CHECKING:
    from airflow.sdk import ObjectStoragePath

__all__ = ["ResultOptions", "result_limit", "result_store"]

_RESULT_LIMIT = 1024 * 1024
"""The default ``result_limit``: bytes of JSON that one rank's value may take."""

_STORED_RESULT_LIMIT = 1024 * 1024 * 1024
"""The default ``result_limit`` with a ``results_path``, which keeps large values out of XCom."""


class ResultOptions(Protocol):
    """The parameters of an operator that are about results."""

    result_limit: int | None
    results_path: ObjectStoragePath | str | None
    results_threshold: int
    results_format: str
    do_xcom_push: bool


def result_limit(options: ResultOptions, store: ResultStore | None) -> int:
    """The most bytes of JSON that one rank's value may take; 0 if nobody wants the values."""
    if not options.do_xcom_push:
        return 0
    by_default = _RESULT_LIMIT if store is None else _STORED_RESULT_LIMIT
    return options.result_limit or by_default


def result_store(options: ResultOptions, ti: Any) -> ResultStore | None:
    """The store for values that are too large for XCom, after a test write; None without a
    ``results_path``.

    :raises ConfigError: the store cannot be used.
    """
    path = options.results_path or configured_path()
    if not path:
        if options.results_format == "npz":
            raise ConfigError(
                "results_format is 'npz', but there is no results_path to store arrays in; "
                "set results_path, or use results_format 'json', which makes lists of arrays"
            )
        return None
    arrays = options.results_format == "npz"
    store = ResultStore.of(path, options.results_threshold, ti, arrays=arrays)
    store.check()
    return store
