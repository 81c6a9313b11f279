"""Pickles that a fresh interpreter can read: code by value where it could not be imported by name.

The rule: a function, class or module goes by name if a fresh interpreter with the same ``sys.path``
finds that module under that name in that file, and by value otherwise. By value go ``__main__`` and
what Airflow makes of a DAG file (a module named ``unusual_prefix_<hash>_<stem>``), and whatever
they use of their own. cloudpickle does the work; this adds the rule, and the few kinds of object
that cloudpickle 3.1 sends by name or not at all: cached functions and properties, and some of
``typing``.

This module may import nothing but the standard library and ``llutil.errors``, and cloudpickle only
when it is used.
"""

from __future__ import annotations

import functools
import importlib
import io
import pickle
import sys
import threading
import types
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Any

from llutil.errors import EntrypointError

__all__ = ["dumps", "import_for", "loads"]

_PROTOCOL = 5
_registry = threading.RLock()
"""Guards cloudpickle's list of modules that go by value, which is one for the process."""


def dumps(value: object) -> tuple[bytes, bool]:
    """``value`` pickled, and whether code is in it, which only this Python version can run.

    Whatever the pickler or the value's own methods raise comes through.
    """
    import cloudpickle

    with _registry, io.BytesIO() as file:
        pickler = _pickler_class()(file)
        try:
            pickler.dump(value)
        finally:
            for module in pickler.by_value:
                cloudpickle.unregister_pickle_by_value(module)
        return file.getvalue(), pickler.holds_code


def loads(data: bytes, whose: str) -> Any:
    """The value that ``dumps`` was given. ``whose`` it is goes into the errors.

    :raises EntrypointError: this interpreter lacks a module or an attribute that the value refers
        to. What a module raises while it is imported comes through.
    """
    return _Unpickler(data, whose).load()


def import_for(whose: str, module: str) -> types.ModuleType:
    """Import ``module``, which ``whose`` needs.

    :raises EntrypointError: there is no such module. What its import raises comes through, also
        where it lacks another module itself.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise
        raise EntrypointError(
            f"{whose} needs the module {module!r}, which the worker's interpreter {sys.executable} "
            f"does not find ({error}): install it there, or add its folder to PYTHONPATH"
        ) from error


class _Unpickler(pickle.Unpickler):
    """Says whose need it is that cannot be met."""

    def __init__(self, data: bytes, whose: str) -> None:
        super().__init__(io.BytesIO(data))
        self._whose = whose

    def find_class(self, module: str, name: str) -> Any:
        found = import_for(self._whose, module)
        if (module, name) == ("cloudpickle.cloudpickle", "subimport"):  # how it imports a module
            return functools.partial(import_for, self._whose)
        try:
            return super().find_class(module, name)
        except AttributeError as error:
            raise EntrypointError(
                f"{self._whose} needs {name!r} of the module {module!r}, which has none in the "
                f"worker ({getattr(found, '__file__', 'built in')}): it differs from the one here"
            ) from error


@functools.cache
def _pickler_class() -> type[Any]:
    """cloudpickle's pickler under our rule; made on first use, since cloudpickle is imported
    late.
    """
    import cloudpickle

    class Pickler(cloudpickle.Pickler):  # type: ignore[misc]  # cloudpickle is untyped
        def __init__(self, file: io.BytesIO) -> None:
            super().__init__(file, protocol=_PROTOCOL)
            self.by_value: list[types.ModuleType] = []
            self.holds_code = False
            self._importable = functools.cache(_importable)

        def reducer_override(self, value: Any) -> Any:
            kind = type(value)
            if kind is types.CodeType:
                self.holds_code = True
            elif kind in _REBUILDS and not self._found_by_name(value):
                return _REBUILDS[kind](value)
            elif issubclass(kind, (types.FunctionType, type, typing.TypeVar)):
                self._judge(getattr(value, "__module__", None))
            elif kind is types.ModuleType:
                self._judge(value.__name__)
            return super().reducer_override(value)

        def _judge(self, name: object) -> None:
            """Have the module ``name`` go by value if it must; cloudpickle itself knows
            ``__main__``.
            """
            if not isinstance(name, str) or name == "__main__" or name not in sys.modules:
                return
            if name in cloudpickle.list_registry_pickle_by_value() or self._importable(name):
                return
            module = sys.modules[name]
            cloudpickle.register_pickle_by_value(module)
            self.by_value.append(module)

        def _found_by_name(self, value: Any) -> bool:
            name = getattr(value, "__module__", None)
            if name not in sys.modules or name == "__main__" or not self._importable(name):
                return False
            for attribute in ("__qualname__", "__name__"):
                path = getattr(value, attribute, None)
                if isinstance(path, str):
                    return _follow(sys.modules[name], path.split(".")) is value
            return False

    return Pickler


def _importable(name: str) -> bool:
    """Whether a fresh interpreter with this ``sys.path`` finds the loaded module ``name`` by its
    name.

    ``importlib.util.find_spec`` will not do: of a loaded module it only repeats what the loader
    said.
    """
    module = sys.modules.get(name)
    parent, _, last = name.rpartition(".")
    if module is None or (parent and not _importable(parent)):
        return False
    folders = getattr(sys.modules[parent], "__path__", ()) if parent else None
    spec = None
    for finder in sys.meta_path:
        spec = finder.find_spec(name, folders)
        if spec is not None:
            break
    file = getattr(module, "__file__", None)
    if spec is None:  # some packages make modules while they are imported: torch._C._nn, six.moves
        return bool(parent) and file is None and getattr(sys.modules[parent], last, None) is module
    if file is None or spec.origin is None or not spec.has_location:
        return True
    return _same_file(spec.origin, file)


def _same_file(one: str, other: str) -> bool:
    try:
        return Path(one).samefile(other)
    except OSError:  # in a zip archive, or gone
        return one == other


def _follow(value: object, path: list[str]) -> object:
    for name in path:
        value = getattr(value, name, None)
    return value


def _rebuild_cached(function: Callable[..., Any], options: dict[str, Any]) -> Any:
    return functools.lru_cache(**options)(function)


def _rebuild_property(function: Callable[[Any], Any], name: str | None) -> Any:
    made = functools.cached_property(function)
    made.attrname = name
    return made


_REBUILDS: dict[type, Callable[[Any], tuple[Callable[..., Any], tuple[Any, ...]]]] = {
    functools._lru_cache_wrapper: lambda one: (  # noqa: SLF001 - its class has no other name
        _rebuild_cached,
        (one.__wrapped__, one.cache_parameters()),
    ),
    functools.cached_property: lambda one: (_rebuild_property, (one.func, one.attrname)),
    typing.NewType: lambda one: (typing.NewType, (one.__name__, one.__supertype__)),
    typing.ParamSpec: lambda one: (typing.ParamSpec, (one.__name__,)),
    typing.TypeVarTuple: lambda one: (typing.TypeVarTuple, (one.__name__,)),
}
"""Kinds that name themselves to a pickler, or hold a lock, and how to make them again."""
