"""The environment that a task gives its agent: the task's own, made fit for another process.

Functions here only compute; they read ``sysconfig`` and ``site``, and import nothing but the
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
    """The folders of ``sys.path`` that are this interpreter's own: standard library, site-packages,
    scripts.

    The last is where ``airflow`` lies, and so the first entry of a path that began there. An agent
    under the same interpreter has them anyhow, and under another one they would be wrong.
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
    """The entries of ``sys_path`` to hand on, in order: absolute, each once, without those in
    ``own``.

    Airflow puts the folders of DAGs, plugins and configuration there; ``''`` means ``cwd``. An
    entry with a ``:`` in it cannot be written in ``PYTHONPATH`` and is left out.
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
    """``base`` with what an agent needs, and ``added`` by the user last.

    A user's ``PYTHONPATH`` is searched before ``paths`` instead of taking their place, so that
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
    # The number of a descriptor that only the task has; Airflow in a worker would take it for its
    # own.
    environment.pop("__AIRFLOW_SUPERVISOR_FD", None)
    # PYTHONPATH of `base` is already part of the task's sys.path, and so of `paths`.
    python_path = [path for path in (added.get("PYTHONPATH", ""), *paths) if path]
    environment.pop("PYTHONPATH", None)
    if python_path:
        environment["PYTHONPATH"] = os.pathsep.join(python_path)
    return environment
