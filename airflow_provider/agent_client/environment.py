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
from typing import NamedTuple

__all__ = [
    "TaskPaths",
    "agent_environment",
    "inherited_paths",
    "interpreter_folders",
    "python_path_of",
    "task_paths",
]

_SITE_PACKAGES = {"site-packages", "dist-packages"}


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


def inherited_paths(*, own_cwd: bool) -> tuple[list[str], TaskPaths]:
    """The entries of this process's ``PYTHONPATH``, and its other paths for an agent. ``own_cwd``:
    the agent has a working directory of its own. Then this process's may have been removed.

    :raises FileNotFoundError: the working directory was removed, and the agent has no other.
    """
    cwd: str | None = None
    try:
        cwd = os.getcwd()  # noqa: PTH109 - a str is wanted
    except FileNotFoundError:
        if not own_cwd:
            raise
    python_path = python_path_of(os.environ, cwd)
    return python_path, task_paths(sys.path, python_path, cwd, interpreter_folders())


class TaskPaths(NamedTuple):
    """Folders of a task's ``sys.path`` that its agent does not have by itself.

    ``before`` are those that the task finds before its site-packages, ``after`` the others. Both
    come after the standard library.
    """

    before: list[str]
    after: list[str]


def task_paths(
    sys_path: Sequence[str], python_path: Sequence[str], cwd: str | None, own: frozenset[str]
) -> TaskPaths:
    """The entries of ``sys_path`` for the agent: absolute, in order, each once, none of ``own``.

    Airflow appends the folders of DAGs, plugins and configuration to ``sys.path`` (3.3). A DAG file
    may insert its own folder. In the task, the standard library is loaded before that, and so not
    hidden by a ``platform.py`` there. An agent has it still to load. ``python_path`` are the
    entries of the ``PYTHONPATH`` that the agent gets too. ``''`` means ``cwd``. Without a ``cwd``,
    which was removed then, relative entries are left out.
    """
    found = TaskPaths([], [])
    wanted = found.before
    for entry in sys_path:
        if cwd is None and not Path(entry).is_absolute():
            continue
        path = os.path.normpath(Path(cwd or "/", entry))
        if os.path.realpath(path) in own:
            if Path(path).name in _SITE_PACKAGES:
                wanted = found.after
        elif path not in (*found.before, *found.after, *python_path):
            wanted.append(path)
    return found


def python_path_of(environment: Mapping[str, str], cwd: str | None) -> list[str]:
    """The entries of ``PYTHONPATH``, absolute. An empty one means ``cwd``, as for Python. Without a
    ``cwd``, which was removed then, relative entries are left out.
    """
    text = environment.get("PYTHONPATH", "")
    return [
        os.path.normpath(Path(cwd or "/", entry))
        for entry in text.split(os.pathsep)
        if text and (cwd is not None or Path(entry).is_absolute())
    ]


def agent_environment(
    base: Mapping[str, str], python_path: Sequence[str], added: Mapping[str, str]
) -> dict[str, str]:
    """``base`` with what an agent needs, and with ``added``, the user's variables, which win.

    A ``PYTHONPATH`` in ``added`` is searched before ``python_path``, the entries of the task's, and
    does not replace them.
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
    entries = [entry for entry in (added.get("PYTHONPATH", ""), *python_path) if entry]
    environment.pop("PYTHONPATH", None)
    if entries:
        environment["PYTHONPATH"] = os.pathsep.join(entries)
    return environment
