"""What the ranks returned: how it gets through XCom or an object store to tasks downstream.

Tasks downstream import ``gang_results``, ``load_results`` and ``load_result`` from here. The room
may import ``gang``, ``parameters``, ``retries``, ``llutil.task_link`` and ``llutil.serialization``.
It never imports torch; numpy is imported only to read arrays. Names are resolved when they are
first used (PEP 562).
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airflow_provider.results.result_readers import (
        MissingRankError,
        StoredResultError,
        gang_results,
        load_result,
        load_results,
    )

__all__ = ["MissingRankError", "StoredResultError", "gang_results", "load_result", "load_results"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        return getattr(import_module("airflow_provider.results.result_readers"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
