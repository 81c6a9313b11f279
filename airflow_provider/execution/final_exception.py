"""What a task raises in place of what a rank raised to end it: skipped, or failed for good.

This module may import ``llutil.errors``, ``llutil.failure``, ``airflow_provider.gang`` and
Airflow's exceptions.
"""

from __future__ import annotations

from airflow.sdk import exceptions

from airflow_provider.gang.siblings import GangHopeless
from llutil.errors import LaunchError
from llutil.failure import FINAL_EXCEPTIONS

__all__ = ["final_exception", "hopeless_exception"]


def hopeless_exception(hopeless: GangHopeless) -> exceptions.AirflowException:
    """What a node of a gang raises that cannot form any more: it fails for good, or is skipped if
    its siblings are.
    """
    if hopeless.skipped:
        return exceptions.AirflowSkipException(hopeless.why)
    return exceptions.AirflowFailException(hopeless.why)


def final_exception(error: LaunchError) -> exceptions.AirflowException | None:
    """The exception of Airflow's that the failed rank of ``error`` raised, if it was one of
    ``FINAL_EXCEPTIONS``. The text of an ``AirflowSkipException`` is one line, and that of an
    ``AirflowFailException`` the whole report.
    """
    name = error.failure.final_exception if error.failure is not None else ""
    if name not in FINAL_EXCEPTIONS:
        return None
    skipped = name == "AirflowSkipException"
    text = error.job_failure.why if skipped else str(error)
    raised: exceptions.AirflowException = getattr(exceptions, name)(text)
    return raised
