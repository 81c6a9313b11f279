"""Modules of a worker that hold what was pickled by value, under the names that it had.

A class of ``__main__`` or of a DAG file arrives by value: the worker has no file to import it from.
But code in the worker may pickle an object of that class again: ``torch.save``,
``all_gather_object``, a process pool, a ``DataLoader``. A pickle names the class by its module. So
that module is made here, and what arrives is put into it: a worker calls ``begin`` before it
unpickles a function, and ``by_value_pickle`` writes pickles that call ``namespace``, ``module`` and
``settle``. A module that the worker can import itself is left alone. In a process that has not
called ``begin`` nothing is made, and what is unpickled is in no module.

This module may import nothing but the standard library; cloudpickle, which wrote the pickle, is
imported when a module is made.
"""

from __future__ import annotations

import importlib.util
import sys
import types
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

__all__ = ["begin", "made", "module", "namespace", "settle", "update"]

_made: dict[str, types.ModuleType] | None = None
"""The modules that were made, by name; None before ``begin``."""


def begin(known: Mapping[str, types.ModuleType] | None = None) -> None:
    """Make modules from here on. ``known`` are modules to fill, which are there already."""
    global _made  # noqa: PLW0603 - sys.modules, which it describes, is one for the process too
    _made = {}
    for name, found in (known or {}).items():
        _add(name, found)


def made() -> tuple[str, ...]:
    """The names of the modules that were made."""
    return tuple(_made or ())


def namespace(name: str, attributes: dict[str, Any]) -> dict[str, Any]:
    """The globals of functions of the module ``name``, which had these ``attributes``."""
    found = _module(name)
    if found is None:
        return attributes
    vars(found).update(attributes)
    return vars(found)


def module(name: str) -> types.ModuleType:
    """The module ``name``; one that is in no table if none is made."""
    return _module(name) or types.ModuleType(name)


def update(value: types.ModuleType, attributes: Mapping[str, Any]) -> None:
    """Give the module ``value`` these ``attributes``."""
    vars(value).update(attributes)


def settle(
    value: Any,
    how: tuple[Callable[[Any, Any], Any], Any, str, tuple[str, ...], Mapping[str, Any]],
) -> None:
    """Give a function or class its state, and its place in its module.

    ``how`` is the setter of the state, the state, the module's name, the names that lead to the
    value from there, and what its annotations need of the module. A class inside another one that
    has not arrived gets a stand-in for that.
    """
    set_state, state, name, path, annotated = how
    set_state(value, state)
    owner: Any = _module(name)
    if owner is None:
        return
    for needed, one in annotated.items():
        vars(owner).setdefault(needed, one)
    for outer in path[:-1]:
        # Not by getattr: the module may look for more, in the very pickle that is being loaded.
        if outer not in vars(owner):
            setattr(owner, outer, type(outer, (), {"__module__": name}))
        owner = vars(owner)[outer]
    if isinstance(value, type):
        value.__qualname__ = ".".join(path)  # cloudpickle (3.1) keeps the last name only
    if vars(owner).get(path[-1]) is not value:
        setattr(owner, path[-1], value)


def _module(name: str) -> types.ModuleType | None:
    if _made is None:
        return None
    if name not in _made:
        if name != "__main__" and _exists(name):
            return None
        _add(name, types.ModuleType(name))
    return _made[name]


def _add(name: str, found: types.ModuleType) -> None:
    assert _made is not None
    _made[name] = sys.modules[name] = found
    if name != "__main__":
        import cloudpickle

        # As it was before the module was there: who uses cloudpickle in a worker may send a
        # function to a process that knows nothing of this module.
        cloudpickle.register_pickle_by_value(found)


def _exists(name: str) -> bool:
    if name in sys.modules:
        return True
    with suppress(Exception):  # its package is not there, or fails while it is imported
        return importlib.util.find_spec(name) is not None
    return False
