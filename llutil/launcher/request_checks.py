"""Checks a ``LaunchRequest`` before anything runs, and finds out what it asks to run.

All problems are told in one error. This module imports no torch, so that a wrong request is refused
quickly.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

from llutil.entrypoint import (
    Command,
    Entrypoint,
    FunctionName,
    Module,
    PickledCall,
    Script,
    parse,
    problem_with,
)
from llutil.errors import ConfigError, EntrypointError, Problem
from llutil.events.events import Events
from llutil.launcher.config_checks import problems_of, run_id_problems
from llutil.launcher.request import LaunchRequest
from llutil.launcher.run_id import RUN_ID
from llutil.serialization import functions
from llutil.serialization.local_rank_macro import arguments_of_rank
from llutil.serialization.shared_objects import SharedObjects

__all__ = ["check_request"]


def check_request(
    request: LaunchRequest, shared: SharedObjects | None = None
) -> tuple[Entrypoint, Callable[[], Any] | None]:
    """Check ``request``. Return its entrypoint as a value, and for start method "fork" the function
    itself, which a forked worker calls without pickling. ``shared`` takes part of what the ranks
    share with this process.

    :raises ConfigError: listing every problem of the configuration and the entrypoint.
    """
    problems = problems_of(request.config)
    if not request.config.run_id:
        problems += run_id_problems(request.default_run_id, f"{RUN_ID} in the environment")
    problems += _page_problems(request.events)
    config_is_wrong = bool(problems)
    entrypoint: Entrypoint | None = None
    direct: Callable[[], Any] | None = None
    try:
        entrypoint, direct = _resolve_entrypoint(request, shared)
    except EntrypointError as error:
        problems += error.problems
    else:
        try:
            # Workers start there too.
            problem = problem_with(entrypoint, str(Path.cwd()))
        except FileNotFoundError:
            problem = "the working directory of this process was removed; start it in another one"
        if problem:
            problems.append(Problem("", problem))
    if problems:
        raise (ConfigError if config_is_wrong else EntrypointError)(problems)
    assert entrypoint is not None
    return entrypoint, direct


def _page_problems(events: Events | None) -> list[Problem]:
    if events is None:
        return []
    try:
        events.pause.is_set()
        _ = events.path
    except ConfigError as error:
        return [Problem("ice_events", f"cannot be shared with workers: {error}")]
    except ValueError:
        return [Problem("ice_events", "is closed; wanted an open page, or none to have one made")]
    return []


def _resolve_entrypoint(
    request: LaunchRequest, shared: SharedObjects | None
) -> tuple[Entrypoint, Callable[[], Any] | None]:
    given = request.entrypoint
    match given:
        case None:
            raise EntrypointError(
                "entrypoint is None; wanted a function, 'package.module:function', a script, '-m "
                "module' or a command"
            )
        case str():
            parsed = parse(given, request.args)
            if isinstance(parsed, FunctionName):
                return FunctionName(
                    parsed.target, functions.pickle_arguments(request.args, {}, shared)
                ), None
            return parsed, None
        case PickledCall() | FunctionName() | Script() | Module() | Command():
            return given, None
        case _ if callable(given):
            functions.check_arguments(given, request.args, {})
            if request.config.start_method == "fork":
                name = getattr(given, "__qualname__", type(given).__qualname__)
                return PickledCall(name, b""), functools.partial(_call, given, request.args)
            return functions.pickle_call(given, request.args, {}, shared), None
        case _:
            raise EntrypointError(
                f"entrypoint is a {type(given).__name__}; wanted a function, "
                "'package.module:function', "
                "a script, '-m module' or a command"
            )


def _call(function: Callable[..., Any], args: tuple[Any, ...]) -> Any:
    """Call ``function`` in a rank that was forked from this process."""
    return function(*arguments_of_rank(args))
