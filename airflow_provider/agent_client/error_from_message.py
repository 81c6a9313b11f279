"""From the agent's last message to the error that the task raises. Nothing here acts."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from llutil import errors
from llutil.errors import (
    ConfigError,
    InfrastructureError,
    LaunchError,
    ResultError,
    WorkersFailedError,
)
from llutil.failure import FailureClass
from llutil.task_link.messages import JobFailed

__all__ = ["error_from"]

_NO_RESULTS: Mapping[int, Any] = MappingProxyType({})


def error_from(failed: JobFailed, results: Mapping[int, Any] = _NO_RESULTS) -> LaunchError:
    """The error that the agent raised, as the class of that name in ``llutil.errors``, else the
    nearest one.

    ``retryable`` and ``job_failure`` are what the agent said, whatever the class says by itself. An
    error of torch, which a task's process need not have, becomes a ``WorkersFailedError``.
    ``results`` are the values that the agent sent before; a ``ResultError`` has them.
    """
    error = _nearest(failed)
    error.retryable = failed.retryable
    error.job_failure = failed.job_failure
    if isinstance(error, ResultError):
        error.results = results
    return error


def _nearest(failed: JobFailed) -> LaunchError:
    named = getattr(errors, failed.error, None)
    if isinstance(named, type) and issubclass(named, LaunchError):
        return named(failed.report)
    if failed.job_failure.failure_class is FailureClass.BAD_CONFIGURATION:
        return ConfigError(failed.report)
    if failed.retryable:
        return InfrastructureError(failed.report)
    return WorkersFailedError(failed.report)
