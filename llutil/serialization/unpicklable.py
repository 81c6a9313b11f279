"""Which part of a value cannot be pickled, as a path that the value's author understands.

A pickler says what it could not pickle, but not how it got there: "cannot pickle '_thread.lock'
object". The user wrote ``train``, which calls ``make_loader``, which uses a global ``lock``. So
after a failure this looks at the parts of the value, takes the first one that fails by itself, and
goes on with its parts::

    train -> make_loader -> global 'lock' (a _thread.lock object)

It pickles many parts, so it is for failures only. This module may import only the standard library.
The caller decides whether a part fails.
"""

from __future__ import annotations

import dis
import functools
import reprlib
import sys
import types
from collections.abc import Callable, Iterable, Iterator
from typing import Any

__all__ = ["described", "trace"]

_GLOBAL_OPS = frozenset({"LOAD_GLOBAL", "STORE_GLOBAL", "DELETE_GLOBAL"})
# Parts in a path. A value that is nested deeper probably fails because of its depth.
_LONGEST_PATH = 20
_CONTAINERS = (list, tuple, set, frozenset)

_Part = tuple[str, Any]
"""A label and the part that it names."""


def trace(value: object, label: str, fails: Callable[[Any], bool]) -> str:
    """The path from ``value`` to the part at fault. ``value`` fails, and is called ``label``."""
    labels = [label]
    seen = [value]  # objects and not their ids: an id is used again when its object is gone
    step: _Part | None = (label, value)
    while step is not None:
        if len(labels) > _LONGEST_PATH:
            return " -> ".join([*labels, "..."])
        step = next(
            (
                (name, part)
                for name, part in _parts(step[1])
                if not any(part is one for one in seen) and fails(part)
            ),
            None,
        )
        if step is not None:
            labels.append(step[0])
            seen.append(step[1])
    return " -> ".join(labels)


def described(value: object) -> str:
    """The type of ``value``, in the words of an error message."""
    kind = type(value)
    name, module = kind.__qualname__, kind.__module__
    # Without the name that a DAG file is imported under, which is long.
    if module != "builtins" and ("." in module or module in sys.stdlib_module_names):
        name = f"{module}.{name}"
    return f"{'an' if name[0] in 'AEIOUaeiou' else 'a'} {name} object"


def _labelled(role: str, name: object, part: object) -> _Part:
    """``part`` with its label: the own name of a function or class, else its role and its type."""
    if isinstance(part, types.FunctionType) and role in ("global", "closure variable"):
        return str(name), part
    if isinstance(part, type):
        return f"class {part.__qualname__}", part
    return f"{role} {reprlib.repr(name)} ({described(part)})", part


def _all_labelled(role: str, items: Iterable[tuple[object, Any]]) -> Iterator[_Part]:
    return (_labelled(role, name, part) for name, part in items)


def _parts(value: Any) -> Iterator[_Part]:
    """What a pickler by value would have to pickle for ``value``."""
    match value:
        case types.FunctionType():
            yield from _parts_of_function(value)
        case types.MethodType():
            yield _labelled("method", value.__name__, value.__func__)
            yield _labelled("object of method", value.__name__, value.__self__)
        case functools.partial():
            yield _labelled("function", _name(value.func), value.func)
            yield from _all_labelled("argument", enumerate(value.args))
            yield from _all_labelled("argument", value.keywords.items())
        case staticmethod() | classmethod():
            yield _labelled("function", _name(value.__func__), value.__func__)
        case property():
            accessors = [one for one in (value.fget, value.fset) if one]
            yield from _all_labelled("function", ((_name(one), one) for one in accessors))
        case type():
            yield from _all_labelled("base", ((base.__name__, base) for base in value.__bases__))
            yield from _all_labelled("attribute", list(vars(value).items()))
        case types.ModuleType():
            names = [item for item in vars(value).items() if item[0] != "__builtins__"]
            yield from _all_labelled("global", names)
        case dict() if type(value) is dict:
            yield from _all_labelled("key", ((key, key) for key in value))
            yield from _all_labelled("item", value.items())
        case _ if type(value) in _CONTAINERS:
            yield from _all_labelled("item", enumerate(value))
        case _:
            yield from _parts_of_object(value)


def _parts_of_function(function: types.FunctionType) -> Iterator[_Part]:
    code, namespace = function.__code__, function.__globals__
    used = ((name, namespace[name]) for name in _globals_of(code) if name in namespace)
    yield from _all_labelled("global", used)
    for name, cell in zip(code.co_freevars, function.__closure__ or (), strict=True):
        try:
            yield _labelled("closure variable", name, cell.cell_contents)
        except ValueError:  # the variable has no value yet
            continue
    defaults = function.__defaults__ or ()
    names = code.co_varnames[code.co_argcount - len(defaults) : code.co_argcount]
    yield from _all_labelled("default of", zip(names, defaults, strict=True))
    yield from _all_labelled("default of", (function.__kwdefaults__ or {}).items())
    yield from _all_labelled("annotation of", function.__annotations__.items())
    yield from _all_labelled("attribute", vars(function).items())


def _parts_of_object(value: Any) -> Iterator[_Part]:
    """The parts that ``value`` gives a pickler to make it again."""
    try:
        reduced = value.__reduce_ex__(4)
    except Exception:  # noqa: BLE001 - any failure means that the value itself is at fault
        return
    if not isinstance(reduced, tuple):
        return
    _, arguments, state, items, pairs = (*reduced, None, None, None)[:5]
    yield from _all_labelled("constructor argument", enumerate(arguments))
    for attributes in state if isinstance(state, tuple) else (state,):
        if isinstance(attributes, dict):
            yield from _all_labelled("attribute", attributes.items())
        elif attributes is not None:
            yield _labelled("state of", type(value).__qualname__, attributes)
    yield from _all_labelled("item", enumerate(items or ()))
    yield from _all_labelled("item", pairs or ())


def _globals_of(code: types.CodeType) -> dict[str, None]:
    """The globals that ``code`` and its inner functions use, in the order of their first use."""
    names = {str(op.argval): None for op in dis.get_instructions(code) if op.opname in _GLOBAL_OPS}
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            names |= _globals_of(constant)
    return names


def _name(function: object) -> str:
    return getattr(function, "__name__", type(function).__name__)
