"""Raises in the task what a rank raised to say how the task ends: skipped, or failed for good.

This module may import ``llutil.errors``, ``llutil.failure``, ``airflow_provider.gang`` and
Airflow's exceptions.
"""

from __future__ import annotations

from airflow.sdk import exceptions

from airflow_provider.gang.siblings import GangHopeless
from llutil.errors import LaunchError
from llutil.failure import FINAL_EXCEPTIONS

__all__ = ["hopeless_exception", "raise_final_exception"]


def hopeless_exception(hopeless: GangHopeless) -> exceptions.AirflowException:
    """What a node of a gang raises that cannot form any more: it fails for good, or is skipped if
    its siblings are.
    """
    if hopeless.skipped:
        return exceptions.AirflowSkipException(hopeless.why)
    return exceptions.AirflowFailException(hopeless.why)


def raise_final_exception(error: LaunchError) -> None:
    """Raise the exception of Airflow's that the failed rank of ``error`` raised, if it was one of
    ``FINAL_EXCEPTIONS``.

    :raises AirflowSkipException: the rank raised it; the text is one line.
    :raises AirflowFailException: the rank raised it; the text is the whole report.
    """
    name = error.failure.final_exception if error.failure is not None else ""
    if name not in FINAL_EXCEPTIONS:
        return
    skipped = name == "AirflowSkipException"
    text = error.job_failure.why if skipped else str(error)
    raise getattr(exceptions, name)(text) from None
