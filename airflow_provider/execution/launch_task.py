"""``LaunchTask``: what this room uses of an operator whose templates are rendered."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

from llutil.errors import Problem

if TYPE_CHECKING:
    from airflow.sdk import ObjectStoragePath, RetryPolicy

    from airflow_provider.retries.launch_retry import LaunchRetry

__all__ = ["LaunchTask"]


class LaunchTask(Protocol):
    """An operator with rendered templates."""

    function: Callable[..., Any] | None
    entrypoint: str | None
    op_args: Any
    op_kwargs: Any
    gang_nodes: int | None
    min_nodes: int | None
    gang_timeout: float
    env: Mapping[str, str] | None
    cwd: str | None
    python: str | None
    launch_retry: LaunchRetry
    result_limit: int | None
    results_path: ObjectStoragePath | str | None
    results_threshold: int
    results_format: str
    pool: str
    outlets: list[Any]
    do_xcom_push: bool
    job_succeeded: bool
    retry_policy: RetryPolicy | None

    @property
    def log(self) -> logging.Logger:
        """The task's log."""

    def parameters(self) -> dict[str, Any]:
        """The parameters of the launch and the operator's own, by name."""

    def blank_templates(self) -> list[Problem]:
        """One problem for each parameter whose template was rendered to nothing."""
