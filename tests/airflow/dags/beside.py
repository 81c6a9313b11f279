"""A module beside the DAG files, as projects have them: it imports Airflow, and workers import
it.
"""

from __future__ import annotations

from pathlib import Path

from airflow.sdk import timezone


def square(number: int) -> int:
    return number * number


def year() -> int:
    """Something that needs Airflow's code, but no running Airflow."""
    return timezone.utcnow().year


def folder() -> str:
    return str(Path(__file__).parent)
