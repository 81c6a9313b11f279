"""Makes the ``Entrypoint`` that an agent runs, with its arguments, from what a DAG file names.

Functions are checked against their arguments and pickled here, in the task, where the DAG file is
loaded. cloudpickle is imported only when a function is sent, not when a DAG is parsed.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from airflow_provider.parameters.function_arguments import context_arguments, read_lazy_sequences
from airflow_provider.parameters.operator_parameters import entrypoint_problems
from airflow_provider.parameters.shown_value import kind_of, shown
from llutil import entrypoint as _entrypoint
from llutil.entrypoint import Command, Entrypoint, FunctionName, Module, Script
from llutil.errors import EntrypointError, Problem

__all__ = ["CWD_REMOVED", "entrypoint_for"]

CWD_REMOVED = "the working directory of this task was removed; give it a cwd"


def entrypoint_for(
    given: Any,
    args: Any,
    kwargs: Any,
    context: Mapping[str, Any],
    *,
    dag_folder: Path,
    cwd: str | None,
) -> Entrypoint:
    """The entrypoint to send, with its arguments.

    A relative path is relative to ``dag_folder``, the folder of the DAG file. A command that is not
    on the ``PATH`` may be a file there.

    :raises EntrypointError: the entrypoint is missing, cannot be sent, or does not accept the
        arguments; or there is no working directory.
    """
    folder = cwd or _working_directory()
    problems = entrypoint_problems(given)
    if folder is None:
        problems.append(Problem("", CWD_REMOVED))
    if problems or folder is None:
        raise EntrypointError(problems)
    args, kwargs = _positional(read_lazy_sequences(args)), _named(read_lazy_sequences(kwargs))
    if not isinstance(given, str):
        from llutil.serialization import functions

        kwargs = {**kwargs, **context_arguments(given, args, kwargs, context)}
        functions.check_arguments(given, args, kwargs)
        return functions.pickle_call(given, args, kwargs)
    parsed = _entrypoint.parse(given, args)
    match parsed:
        case FunctionName():
            from llutil.serialization import functions

            return msgspec.structs.replace(parsed, payload=functions.pickle_arguments(args, kwargs))
        case Script(path=path):
            parsed = msgspec.structs.replace(parsed, path=os.path.normpath(dag_folder / path))
        case Command(program=program) if os.sep in program or _is_beside(dag_folder, program):
            parsed = msgspec.structs.replace(parsed, program=os.path.normpath(dag_folder / program))
        case Command() | Module():
            pass
    if kwargs:
        text = (
            f"has {', '.join(map(repr, kwargs))}, but {parsed.name!r} is no function; give a "
            "script, module or command its arguments by op_args, as on a command line"
        )
        problems.append(Problem("op_kwargs", text))
    missing = _entrypoint.problem_with(parsed, folder)
    if missing is not None:
        problems.append(Problem("", missing))
    if problems:
        raise EntrypointError(problems)
    return parsed


def _working_directory() -> str | None:
    """This task's; None if it was removed."""
    try:
        return str(Path.cwd())
    except FileNotFoundError:
        return None


def _is_beside(dag_folder: Path, program: str) -> bool:
    """Whether ``program`` means the file of that name beside the DAG file: it is not on the
    PATH.
    """
    return shutil.which(program) is None and (dag_folder / program).is_file()


def _positional(args: Any) -> Sequence[Any]:
    if isinstance(args, list | tuple):
        return args
    raise EntrypointError(f"op_args is {kind_of(args)}; wanted a list, even for one argument")


def _named(kwargs: Any) -> Mapping[str, Any]:
    if not isinstance(kwargs, Mapping):
        raise EntrypointError(f"op_kwargs is {kind_of(kwargs)}; wanted a dict with names as keys")
    if wrong := [shown(name) for name in kwargs if not isinstance(name, str)]:
        text = f"op_kwargs has the keys {', '.join(wrong)}; wanted a dict with names as keys"
        raise EntrypointError(text)
    return kwargs
