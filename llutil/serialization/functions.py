"""Functions and their arguments as bytes that a fresh interpreter turns back into calls.

``ship`` and ``pack`` run where the launch is asked for, ``load`` in the worker. A function may be
any: a lambda, a closure, one of ``__main__``, of a DAG file, of an installed module;
``llutil.serialization.by_value_pickle`` says what goes by value and what by name. The bytes begin
with a line: the Python version if they hold code, which only that version can run, else nothing.

This module may import nothing but the standard library, ``llutil.entrypoint``, ``llutil.errors``,
``llutil.serialization.unpicklable`` and ``llutil.serialization.by_value_pickle``; cloudpickle is
imported when a function is sent, never before, since Airflow imports this to parse a DAG.
"""

from __future__ import annotations

import difflib
import functools
import inspect
import platform
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from llutil.entrypoint import Reference, Shipped
from llutil.errors import EntrypointError
from llutil.serialization import by_value_pickle, unpicklable

__all__ = ["check_arguments", "load", "pack", "ship"]

_ADVICE = (
    "Make it inside the function, or pass what it is made of as an argument; or put the function in a "
    "module that workers can import and name it 'package.module:function'"
)


def ship(
    function: Callable[..., Any],
    args: Sequence[Any] = (),
    kwargs: Mapping[str, Any] | None = None,
) -> Shipped:
    """``function`` and its arguments, to be called in another process.

    :raises EntrypointError: ``function`` is not callable, or it or an argument cannot be pickled;
        the text names the global, closure variable, default or argument at fault.
    """
    name = name_of(function)
    if not callable(function):
        raise EntrypointError(
            f"{function!r} is {unpicklable.described(function)}; wanted a function"
        )
    call = function, tuple(args), dict(kwargs or {})
    try:
        return Shipped(name, _dumps(call))
    except Exception as error:
        if _fails(function):
            path = unpicklable.trace(function, name, _fails)
        else:
            path = _trace_arguments(name, call[1], call[2])
        raise EntrypointError(
            f"{name} cannot be sent to a worker, because {path} cannot be pickled ({error}). {_ADVICE}"
        ) from error


def pack(args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None) -> bytes:
    """Arguments for an ``entrypoint.Reference``.

    :raises EntrypointError: one of them cannot be pickled; the text says which.
    """
    call = tuple(args), dict(kwargs or {})
    try:
        return _dumps(call)
    except Exception as error:
        path = _trace_arguments("arguments", *call)
        raise EntrypointError(
            f"the arguments cannot be sent to a worker, because {path} cannot be pickled ({error}). "
            "Pass what it is made of instead, and make it in the function"
        ) from error


def load(entrypoint: Shipped | Reference) -> Callable[[], Any]:
    """The call that ``entrypoint`` stands for, with its arguments; for the worker.

    :raises EntrypointError: a module or attribute is missing here, the code is of another Python,
        or a function that was named does not take its arguments. What a module raises while it is
        imported comes through with its own traceback.
    """
    match entrypoint:
        case Shipped(name=name, payload=payload):
            function, args, kwargs = _loads(payload, name)
        case Reference(target=target, payload=payload):
            function = _resolve(target)
            args, kwargs = _loads(payload, target) if payload else ((), {})
            check_arguments(
                function, args, kwargs
            )  # the caller could not: it never imports the function
    return functools.partial(function, *args, **kwargs)


def check_arguments(
    function: Callable[..., Any],
    args: Sequence[Any] = (),
    kwargs: Mapping[str, Any] | None = None,
) -> None:
    """See that ``function`` takes these arguments. One that hides its signature is taken on trust.

    :raises EntrypointError: it does not; with its name, its signature and what is wrong.
    """
    kwargs = kwargs or {}
    try:
        signature = inspect.signature(function)
    except (ValueError, TypeError):  # as some functions written in C
        return
    try:
        signature.bind(*args, **kwargs)
    except TypeError as error:
        given = [f"{len(args)} positional", *(f"{name}=" for name in kwargs)]
        raise EntrypointError(
            f"{name_of(function)}{signature} cannot be called with these arguments: {error} "
            f"(given: {', '.join(given)})"
        ) from error


def name_of(function: object) -> str:
    """What a reader would call ``function``, without the functions around it."""
    while isinstance(function, functools.partial):
        function = function.func
    name: str = getattr(function, "__qualname__", type(function).__qualname__)
    return name.rpartition("<locals>.")[2]


def _dumps(value: object) -> bytes:
    data, holds_code = by_value_pickle.dumps(value)
    return f"{_python() if holds_code else ''}\n".encode() + data


def _loads(payload: bytes, whose: str) -> Any:
    version, _, data = payload.partition(b"\n")
    if version and version.decode() != _python():
        raise EntrypointError(
            f"{whose} was sent as code of Python {version.decode()}, but this worker is Python "
            f"{_python()}: use the same version, or name the function 'package.module:function'"
        )
    return by_value_pickle.loads(data, whose)


def _python() -> str:
    return ".".join(platform.python_version_tuple()[:2])


def _fails(value: object) -> bool:
    try:
        by_value_pickle.dumps(value)
    except Exception:  # noqa: BLE001 - that it fails, in whatever way, is the answer
        return True
    return False


def _trace_arguments(name: str, args: Iterable[Any], kwargs: Mapping[str, Any]) -> str:
    for key, value in (*enumerate(args), *kwargs.items()):
        if _fails(value):
            label = f"argument {key!r} ({unpicklable.described(value)})"
            return f"{name} -> {unpicklable.trace(value, label, _fails)}"
    return name


def _resolve(target: str) -> Callable[..., Any]:
    """The function that ``package.module:qualified.name`` names."""
    module_name, _, path = target.partition(":")
    found: Any = by_value_pickle.import_for(f"the entrypoint {target!r}", module_name)
    names = path.split(".")
    for depth, name in enumerate(names):
        try:
            found = getattr(found, name)
        except AttributeError as error:
            near = difflib.get_close_matches(name, dir(found), n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            owner = ".".join(names[:depth]) or f"the module {module_name!r}"
            raise EntrypointError(
                f"the entrypoint {target!r} does not exist: {owner} has no {name!r}{hint}"
            ) from error
    if not callable(found):
        raise EntrypointError(
            f"the entrypoint {target!r} is {unpicklable.described(found)}; wanted a function"
        )
    return found  # type: ignore[no-any-return]  # callable() is what we know of it
