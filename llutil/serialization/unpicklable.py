"""Which part of a value keeps it from being pickled, as a path that its author understands.

Picklers say what they could not pickle, but not how they came to it: "cannot pickle '_thread.lock'
object", while the user wrote ``train``, which calls ``make_loader``, which uses a global ``lock``.
So after a failure this goes down into the parts of the value, and follows one that fails by
itself::

    train -> make_loader -> global 'lock' (a _thread.lock object)

It costs a pickling a part and is meant for the failure only. This module may import nothing but the
standard library, and decides nothing: whether a part fails is the caller's to say.
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
_LONGEST = 20
"""Steps of a path; a value nested deeper is at fault for that, most likely."""
_FLAT = (list, tuple, set, frozenset)

_Part = tuple[str, Any]


def trace(value: object, label: str, fails: Callable[[Any], bool]) -> str:
    """The path from ``value``, which is known to fail and is called ``label``, to what is at
    fault.
    """
    labels = [label]
    seen = [value]  # objects and not their ids: an id lives no longer than its object
    step: _Part | None = (label, value)
    while step is not None:
        if len(labels) > _LONGEST:
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
    """What ``value`` is, in the words of an error message."""
    kind = type(value)
    name, module = kind.__qualname__, kind.__module__
    if module != "builtins" and ("." in module or module in sys.stdlib_module_names):
        name = (
            f"{module}.{name}"  # but not the name that a DAG file is imported under, which is long
        )
    return f"{'an' if name[0] in 'AEIOUaeiou' else 'a'} {name} object"


def _labelled(how: str, name: object, part: object) -> _Part:
    """A part, called by its own name if it is a function or a class, else by its place and its
    kind.
    """
    if isinstance(part, types.FunctionType) and how in ("global", "closure variable"):
        return str(name), part
    if isinstance(part, type):
        return f"class {part.__qualname__}", part
    return f"{how} {reprlib.repr(name)} ({described(part)})", part


def _each(how: str, items: Iterable[tuple[object, Any]]) -> Iterator[_Part]:
    return (_labelled(how, name, part) for name, part in items)


def _parts(value: Any) -> Iterator[_Part]:
    """What a pickler by value would have to pickle of ``value``, as ``(label, part)``."""
    match value:
        case types.FunctionType():
            yield from _of_function(value)
        case types.MethodType():
            yield _labelled("method", value.__name__, value.__func__)
            yield _labelled("object of method", value.__name__, value.__self__)
        case functools.partial():
            yield _labelled("function", _name(value.func), value.func)
            yield from _each("argument", enumerate(value.args))
            yield from _each("argument", value.keywords.items())
        case staticmethod() | classmethod():
            yield _labelled("function", _name(value.__func__), value.__func__)
        case property():
            yield from _each("function", ((_name(f), f) for f in (value.fget, value.fset) if f))
        case type():
            yield from _each("base", ((base.__name__, base) for base in value.__bases__))
            yield from _each("attribute", list(vars(value).items()))
        case types.ModuleType():
            names = [item for item in vars(value).items() if item[0] != "__builtins__"]
            yield from _each("global", names)
        case dict() if type(value) is dict:
            yield from _each("key", ((key, key) for key in value))
            yield from _each("item", value.items())
        case _ if type(value) in _FLAT:
            yield from _each("item", enumerate(value))
        case _:
            yield from _of_object(value)


def _of_function(function: types.FunctionType) -> Iterator[_Part]:
    code, space = function.__code__, function.__globals__
    yield from _each("global", ((n, space[n]) for n in _globals_of(code) if n in space))
    for name, cell in zip(code.co_freevars, function.__closure__ or (), strict=True):
        try:
            yield _labelled("closure variable", name, cell.cell_contents)
        except ValueError:  # the variable has no value yet
            continue
    defaults = function.__defaults__ or ()
    names = code.co_varnames[code.co_argcount - len(defaults) : code.co_argcount]
    yield from _each("default of", zip(names, defaults, strict=True))
    yield from _each("default of", (function.__kwdefaults__ or {}).items())
    yield from _each("annotation of", function.__annotations__.items())
    yield from _each("attribute", vars(function).items())


def _of_object(value: Any) -> Iterator[_Part]:
    """The parts that ``value`` itself names when asked how to make it again."""
    try:
        reduced = value.__reduce_ex__(4)
    except Exception:  # noqa: BLE001 - it cannot say, for whatever reason: then it is itself at fault
        return
    if not isinstance(reduced, tuple):
        return
    _, arguments, state, items, pairs = (*reduced, None, None, None)[:5]
    yield from _each("constructor argument", enumerate(arguments))
    for attributes in state if isinstance(state, tuple) else (state,):
        if isinstance(attributes, dict):
            yield from _each("attribute", attributes.items())
        elif attributes is not None:
            yield _labelled("state of", type(value).__qualname__, attributes)
    yield from _each("item", enumerate(items or ()))
    yield from _each("item", pairs or ())


def _globals_of(code: types.CodeType) -> dict[str, None]:
    """The globals that ``code`` and the functions inside it name, in order of appearance."""
    names = {str(op.argval): None for op in dis.get_instructions(code) if op.opname in _GLOBAL_OPS}
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            names |= _globals_of(constant)
    return names


def _name(function: object) -> str:
    return getattr(function, "__name__", type(function).__name__)
