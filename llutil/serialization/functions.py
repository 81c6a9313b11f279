"""Functions and their arguments as bytes, from which a fresh interpreter makes the call.

``pickle_call`` and ``pickle_arguments`` run where the launch is asked for, ``load_call`` in the
worker. Any function will do: a lambda, a closure, one of ``__main__``, of a DAG file, of an
installed module. ``llutil.serialization.by_value_pickle`` says what is pickled by value and what by
name. The bytes begin with a line of text. It holds the Python version if the pickle holds code,
which only that version can run; else it is empty.

This module may import only the standard library, ``llutil.entrypoint``, ``llutil.errors``,
``llutil.serialization.local_rank_macro``, ``llutil.serialization.unpicklable`` and
``llutil.serialization.by_value_pickle``. cloudpickle is imported when a function is pickled, never
before, since Airflow imports this to parse a DAG.
"""

from __future__ import annotations

import difflib
import functools
import inspect
import platform
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from typing import Any

from llutil.entrypoint import FunctionName, PickledCall, function_problem
from llutil.errors import EntrypointError
from llutil.serialization import by_value_pickle, unpicklable
from llutil.serialization.local_rank_macro import arguments_of_rank
from llutil.serialization.shared_objects import SharedObjects

__all__ = ["check_arguments", "load_call", "pickle_arguments", "pickle_call", "pieces"]

_ADVICE = (
    "Make it inside the function, or pass what it is made of as an argument; or put the function "
    "in a module that workers can import and name it 'package.module:function'"
)


def pickle_call(
    function: Callable[..., Any],
    args: Sequence[Any] = (),
    kwargs: Mapping[str, Any] | None = None,
    shared: SharedObjects | None = None,
) -> PickledCall:
    """``function`` and its arguments, to be called in another process. ``shared`` takes part of
    what that process shares with this one; without it such objects are refused.

    :raises EntrypointError: ``function`` is not callable, or it or an argument cannot be pickled.
        The text names the global, closure variable, default or argument at fault.
    """
    name = _name_of(function)
    if not callable(function):
        raise EntrypointError(
            f"{function!r} is {unpicklable.described(function)}; wanted a function"
        )
    call = function, tuple(args), dict(kwargs or {})
    try:
        # The function comes first: who needs what it is made of, but not its arguments, can stop
        # there.
        return PickledCall(name, _dumps(function, call, shared=shared))
    except Exception as error:
        fails = functools.partial(_fails, may_share=shared is not None)
        if fails(function):
            path = unpicklable.trace(function, name, fails)
        else:
            path = _trace_arguments(name, call[1], call[2], fails)
        raise EntrypointError(
            f"{name} cannot be sent to a worker, because {path} cannot be pickled ({error}). "
            f"{_ADVICE}"
        ) from error


def pickle_arguments(
    args: Sequence[Any] = (),
    kwargs: Mapping[str, Any] | None = None,
    shared: SharedObjects | None = None,
) -> bytes:
    """The ``payload`` of an ``entrypoint.FunctionName``: the arguments of the function it names.
    ``shared`` is as in ``pickle_call``.

    :raises EntrypointError: one of them cannot be pickled; the text says which.
    """
    call = tuple(args), dict(kwargs or {})
    try:
        return _dumps(call, shared=shared)
    except Exception as error:
        fails = functools.partial(_fails, may_share=shared is not None)
        path = _trace_arguments("arguments", *call, fails)
        raise EntrypointError(
            f"the arguments cannot be sent to a worker, because {path} cannot be pickled "
            f"({error}). Pass what it is made of instead, and make it in the function"
        ) from error


def load_call(entrypoint: PickledCall | FunctionName) -> Callable[[], Any]:
    """The function of ``entrypoint`` with its arguments as this rank gets them, ready to be called;
    for the worker.

    :raises EntrypointError: a module or attribute is missing here, the code is of another Python
        version, or a named function does not take its arguments. What a module raises while it is
        imported is raised unchanged.
    """
    match entrypoint:
        case PickledCall():
            *_, (function, args, kwargs) = pieces(entrypoint)
        case FunctionName(target=target):
            function = _resolve(target)
            args, kwargs = next(pieces(entrypoint), ((), {}))
            # The caller could not check them, since it never imports the function.
            check_arguments(function, args, kwargs)
    return functools.partial(function, *arguments_of_rank(args), **kwargs)


def pieces(entrypoint: PickledCall | FunctionName) -> Iterator[Any]:
    """What was pickled for ``entrypoint``, each piece unpickled when it is asked for.

    :raises EntrypointError: as ``load_call`` does.
    """
    payload = entrypoint.payload
    owner = entrypoint.name if isinstance(entrypoint, PickledCall) else entrypoint.target
    if not payload:
        return
    version, _, data = payload.partition(b"\n")
    if version and version.decode() != _python_version():
        raise EntrypointError(
            f"{owner} was sent as code of Python {version.decode()}, but this worker is Python "
            f"{_python_version()}: use the same version, or name the function "
            "'package.module:function'"
        )
    yield from by_value_pickle.loads(data, owner)


def check_arguments(
    function: Callable[..., Any],
    args: Sequence[Any] = (),
    kwargs: Mapping[str, Any] | None = None,
) -> None:
    """Check that ``function`` can be run, and takes these arguments. One without a signature may
    take any.

    :raises EntrypointError: it does not; the text has its name, its signature and what is wrong.
    """
    problem = function_problem(function)
    if problem is not None:
        raise EntrypointError(f"{_name_of(function)} {problem}")
    kwargs = kwargs or {}
    try:
        signature = inspect.signature(function)
    except (ValueError, TypeError):  # some functions written in C have no signature
        return
    try:
        signature.bind(*args, **kwargs)
    except TypeError as error:
        given = [f"{len(args)} positional", *(f"{name}=" for name in kwargs)]
        raise EntrypointError(
            f"{_name_of(function)}{signature} cannot be called with these arguments: {error} "
            f"(given: {', '.join(given)})"
        ) from error


def _name_of(function: object) -> str:
    """The name of ``function`` for a reader, without the functions that it is defined in."""
    while isinstance(function, functools.partial):
        function = function.func
    name: str = getattr(function, "__qualname__", type(function).__qualname__)
    return name.rpartition("<locals>.")[2]


def _dumps(*values: object, shared: SharedObjects | None) -> bytes:
    data, holds_code = by_value_pickle.dumps(*values, shared=shared)
    return f"{_python_version() if holds_code else ''}\n".encode() + data


def _python_version() -> str:
    return ".".join(platform.python_version_tuple()[:2])


def _fails(value: object, *, may_share: bool) -> bool:
    try:
        with closing(SharedObjects()) as shared:
            by_value_pickle.dumps(value, shared=shared if may_share else None)
    except Exception:  # noqa: BLE001 - any failure is the answer
        return True
    return False


def _trace_arguments(
    name: str, args: Iterable[Any], kwargs: Mapping[str, Any], fails: Callable[[Any], bool]
) -> str:
    for key, value in (*enumerate(args), *kwargs.items()):
        if fails(value):
            label = f"argument {key!r} ({unpicklable.described(value)})"
            return f"{name} -> {unpicklable.trace(value, label, fails)}"
    return name


def _resolve(target: str) -> Callable[..., Any]:
    """The function that ``target``, ``package.module:qualified.name``, names."""
    module_name, _, path = target.partition(":")
    value: Any = by_value_pickle.import_for(f"the entrypoint {target!r}", module_name)
    names = path.split(".")
    for depth, name in enumerate(names):
        try:
            value = getattr(value, name)
        except AttributeError as error:
            similar = difflib.get_close_matches(name, dir(value), n=1)
            hint = f"; did you mean {similar[0]!r}?" if similar else ""
            owner = ".".join(names[:depth]) or f"the module {module_name!r}"
            raise EntrypointError(
                f"the entrypoint {target!r} does not exist: {owner} has no {name!r}{hint}"
            ) from error
    if not callable(value):
        raise EntrypointError(
            f"the entrypoint {target!r} is {unpicklable.described(value)}; wanted a function"
        )
    return value  # type: ignore[no-any-return]  # callable() is all that we know of it
