"""Tasks of an Airflow whose agents have torch imported when they begin.

This module may import nothing but the standard library and ``tests.support``.
"""

from __future__ import annotations

from pathlib import Path

from tests.support import warm_python

__all__ = ["have_agents_forked"]


def have_agents_forked(home: Path, name: str = "python") -> list[str]:
    """Have the tasks of the Airflow in the folder ``home`` start such agents, see
    ``airflow_local_settings``; the command line of the process that they are forked from, which
    has this ``name``.
    """
    settings = Path(__file__).with_name("airflow_local_settings.py")
    (home / "config").mkdir(parents=True, exist_ok=True)
    link = home / "config" / settings.name
    if not link.is_symlink():
        link.symlink_to(settings)
    return warm_python.command(home / name)
