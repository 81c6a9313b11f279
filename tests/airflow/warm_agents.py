"""Tasks of an Airflow whose agents have torch imported when they begin.

This module may import nothing but the standard library and ``tests.support``.
"""

from __future__ import annotations

from pathlib import Path

from tests.support import warm_python

__all__ = ["have_agents_forked"]


def have_agents_forked(home: Path) -> list[str]:
    """Have the tasks of the Airflow in the folder ``home`` start such agents, see
    ``airflow_local_settings``; the command line of the process that they are forked from.
    """
    settings = Path(__file__).with_name("airflow_local_settings.py")
    (home / "config").mkdir(parents=True, exist_ok=True)
    (home / "config" / settings.name).symlink_to(settings)
    return warm_python.command(home / "python")
