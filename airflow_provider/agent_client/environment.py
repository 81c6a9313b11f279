"""The environment that a task gives its agent: the task's own, changed to suit a new process.

These functions read ``sysconfig`` and ``site`` and change nothing. This module may import only the
standard library.
"""

from __future__ import annotations

import os
import site
import sys
import sysconfig
from collections.abc import Mapping, Sequence
from pathlib import Path

__all__ = ["agent_environment", "interpreter_folders", "shared_paths"]


def interpreter_folders() -> frozenset[str]:
    """The folders of ``sys.path`` that belong to this interpreter.

    They are those of the standard library, site-packages and scripts. The last holds the command
    ``airflow``, and is the first entry of ``sys.path`` in a process that was started by it. An
    agent with the same interpreter has these folders anyhow; with another one they would be wrong.
    """
    prefixes = [sys.prefix, sys.exec_prefix, sys.base_prefix, sys.base_exec_prefix]
    names = ("stdlib", "platstdlib", "purelib", "platlib", "scripts")
    folders = {sysconfig.get_path(name) for name in names}
    folders |= {str(Path(path, "lib-dynload")) for path in tuple(folders)}
    folders |= {*site.getsitepackages(prefixes), site.getusersitepackages()}
    zipped = f"python{sys.version_info.major}{sys.version_info.minor}.zip"
    folders |= {str(Path(prefix, sys.platlibdir, zipped)) for prefix in prefixes}
    return frozenset(os.path.realpath(folder) for folder in folders)


def shared_paths(sys_path: Sequence[str], cwd: str, own: frozenset[str]) -> list[str]:
    """The entries of ``sys_path`` for the agent: absolute, in order, each once, none of ``own``.

    Airflow puts the folders of DAGs, plugins and configuration there. ``''`` means ``cwd``. An
    entry that contains a ``:`` cannot be written in ``PYTHONPATH`` and is left out.
    """
    shared: dict[str, None] = {}
    for entry in sys_path:
        path = os.path.normpath(Path(cwd, entry))
        if os.pathsep not in path and os.path.realpath(path) not in own:
            shared[path] = None
    return list(shared)


def agent_environment(
    base: Mapping[str, str], paths: Sequence[str], added: Mapping[str, str]
) -> dict[str, str]:
    """``base`` with what an agent needs, and with ``added``, the user's variables, which win.

    A ``PYTHONPATH`` in ``added`` is searched before ``paths`` and does not replace them, so that
    modules beside the DAG file are still found.
    """
    environment = {
        **base,
        # Without this, the first import of airflow in a worker sets up Airflow's database
        # connection, which a task's environment forbids, and fails (measured with Airflow 3.3.2).
        "_AIRFLOW__AS_LIBRARY": "1",
        "PYTHONUNBUFFERED": "1",
        **added,
    }
    # It holds the number of a descriptor that only the task has. Airflow in a worker would use it.
    environment.pop("__AIRFLOW_SUPERVISOR_FD", None)
    # PYTHONPATH of `base` is already part of the task's sys.path, and so of `paths`.
    python_path = [path for path in (added.get("PYTHONPATH", ""), *paths) if path]
    environment.pop("PYTHONPATH", None)
    if python_path:
        environment["PYTHONPATH"] = os.pathsep.join(python_path)
    return environment
