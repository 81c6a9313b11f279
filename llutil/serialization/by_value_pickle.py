"""Pickles that a fresh interpreter can read: code that it cannot import is pickled by value.

The rule: a function, class or module is pickled by name if a fresh interpreter with the same
``sys.path`` finds that module under that name in that file. All else is pickled by value:
``__main__``, the module that Airflow makes of a DAG file (``unusual_prefix_<hash>_<stem>``), and
what of their own they use. cloudpickle does the work. This module adds the rule, and a few kinds of
object that cloudpickle 3.1 pickles by name or not at all: cached functions and properties, and some
of ``typing``.

In a worker, what is pickled by value gets its place in a module of its old name, see
``llutil.serialization.made_modules``. What a worker shares with this process is pickled by
``shared_objects``. This module may import only these two, ``annotation_names``, the standard
library and ``llutil.errors``. cloudpickle is imported when it is used.
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
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from llutil.errors import EntrypointError
from llutil.serialization import made_modules
from llutil.serialization.annotation_names import names_in_annotations
from llutil.serialization.shared_objects import SharedObjects, refuse_or_reduce

__all__ = ["dumps", "import_for", "loads"]

_PROTOCOL = 5
_BUILTINS = "__builtins__"
_registry_lock = threading.RLock()
"""Guards cloudpickle's list of modules to pickle by value: there is one list for the process."""


def dumps(*values: object, shared: SharedObjects | None = None) -> tuple[bytes, bool]:
    """``values`` pickled one after another, and whether the pickle holds code, which only this
    Python version can run. What one value shares with an earlier one is not pickled again.
    ``shared`` takes part of objects that the reader shares with this process; without it they are
    refused.

    Whatever the pickler or the value's own methods raise is raised unchanged.
    """
    import cloudpickle

    with _registry_lock, io.BytesIO() as file:
        pickler = _pickler_class()(file, shared)
        try:
            with nullcontext() if shared is None else shared.pickling():
                for value in values:
                    pickler.dump(value)
        finally:
            for module in pickler.by_value:
                cloudpickle.unregister_pickle_by_value(module)
        return file.getvalue(), pickler.holds_code


def loads(data: bytes, owner: str) -> Iterator[Any]:
    """The values that ``dumps`` was given, each loaded when it is asked for. Errors say that
    ``owner`` needs what is missing.

    :raises EntrypointError: this interpreter lacks a module or an attribute that a value refers to.
        What a module raises while it is imported is raised unchanged.
    """
    unpickler = _Unpickler(data, owner)
    while not unpickler.is_at_end:
        yield unpickler.load()


def import_for(owner: str, module: str) -> types.ModuleType:
    """Import ``module``; an error says that ``owner`` needs it.

    :raises EntrypointError: there is no such module. What its import raises is raised unchanged,
        also where it lacks another module itself.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise
        raise EntrypointError(
            f"{owner} needs the module {module!r}, which the worker's interpreter {sys.executable} "
            f"does not find ({error}): install it there, or add its folder to PYTHONPATH"
        ) from error


class _Unpickler(pickle.Unpickler):
    """An unpickler whose errors name the ``owner`` of the pickle."""

    def __init__(self, data: bytes, owner: str) -> None:
        self._file = io.BytesIO(data)
        super().__init__(self._file)
        self._size = len(data)
        self._owner = owner

    @property
    def is_at_end(self) -> bool:
        """Whether all values have been loaded."""
        return self._file.tell() == self._size

    def find_class(self, module: str, name: str) -> Any:
        imported = import_for(self._owner, module)
        # cloudpickle unpickles a module by calling this function.
        if (module, name) == ("cloudpickle.cloudpickle", "subimport"):
            return functools.partial(import_for, self._owner)
        try:
            return super().find_class(module, name)
        except AttributeError as error:
            file = getattr(imported, "__file__", "built in")
            raise EntrypointError(
                f"{self._owner} needs {name!r} of the module {module!r}. The worker's module lacks "
                f"it ({file}): it is not the same as the one here"
            ) from error


class _Globals(dict[str, Any]):
    """Stands in a pickle for the globals of a module that is made where the pickle is loaded."""

    def __init__(self, shared: dict[str, Any]) -> None:
        names = ("__package__", "__name__", "__path__", "__file__")
        super().__init__({name: shared[name] for name in names if name in shared})

    def __reduce__(self) -> tuple[Any, ...]:
        return made_modules.namespace, (self["__name__"], dict(self))


@functools.cache
def _pickler_class() -> type[Any]:
    """cloudpickle's pickler with our rule; made at its first use, to import cloudpickle late."""
    import cloudpickle

    class Pickler(cloudpickle.Pickler):  # type: ignore[misc]  # cloudpickle is untyped
        def __init__(self, file: io.BytesIO, shared: SharedObjects | None) -> None:
            super().__init__(file, protocol=_PROTOCOL)
            self._shared = shared
            self.by_value: list[types.ModuleType] = []
            self.holds_code = False
            self._importable = functools.cache(_importable)

        def reducer_override(self, value: Any) -> Any:
            kind = type(value)
            sharing = refuse_or_reduce(value, self._shared)
            if sharing is not NotImplemented:
                return sharing
            if kind is types.CodeType:
                self.holds_code = True
            elif kind in _REDUCERS and not self._is_importable(value):
                return _REDUCERS[kind](value)
            elif issubclass(kind, (types.FunctionType, type, typing.TypeVar)):
                self._check_module(getattr(value, "__module__", None))
            elif kind is types.ModuleType:
                self._check_module(value.__name__)
                if self._is_made(value.__name__, vars(value)):
                    content = {name: one for name, one in vars(value).items() if name != _BUILTINS}
                    make = made_modules.module, (value.__name__,)
                    return *make, content, None, None, made_modules.update
            if kind is types.FunctionType:
                self._share_globals(value.__globals__)
            return self._placed(value, super().reducer_override(value))

        def _share_globals(self, shared: dict[str, Any]) -> None:
            """Have functions of a module that a worker makes use that module's own globals."""
            name = shared.get("__name__")
            if id(shared) in self.globals_ref or not isinstance(name, str):
                return
            self._check_module(name)
            if self._is_made(name, shared):
                self.globals_ref[id(shared)] = _Globals(shared)

        def _placed(self, value: Any, reduced: Any) -> Any:
            """``reduced``, which also puts ``value`` into its module, if it is found there."""
            if not isinstance(reduced, tuple) or len(reduced) < 6:  # without a setter of the state
                return reduced
            name, path = value.__module__, value.__qualname__.split(".")
            module = sys.modules.get(name)
            if module is None or not self._is_made(name, vars(module)):
                return reduced
            inner = len(path) > 1 and not isinstance(value, type)
            if inner or _attribute_at(module, path) is not value:
                return reduced
            make, args, state, _, _, set_state = reduced
            names = names_in_annotations(value, vars(module), self._importable)
            how = set_state, state, name, tuple(path), names
            return make, args, how, None, None, made_modules.settle

        def _is_made(self, name: str, content: dict[str, Any]) -> bool:
            """Whether a worker makes the module ``name``, which has this ``content`` here."""
            module = sys.modules.get(name)
            if module is None or vars(module) is not content:
                return False
            return name == "__main__" or not self._importable(name)

        def _check_module(self, name: object) -> None:
            """Register the module ``name`` to be pickled by value, if it cannot be imported.

            cloudpickle itself knows that ``__main__`` is pickled by value.
            """
            if not isinstance(name, str) or name == "__main__" or name not in sys.modules:
                return
            if name in cloudpickle.list_registry_pickle_by_value() or self._importable(name):
                return
            module = sys.modules[name]
            cloudpickle.register_pickle_by_value(module)
            self.by_value.append(module)

        def _is_importable(self, value: Any) -> bool:
            name = getattr(value, "__module__", None)
            if name not in sys.modules or name == "__main__" or not self._importable(name):
                return False
            for attribute in ("__qualname__", "__name__"):
                path = getattr(value, attribute, None)
                if isinstance(path, str):
                    return _attribute_at(sys.modules[name], path.split(".")) is value
            return False

    return Pickler


def _importable(name: str) -> bool:
    """Whether a fresh interpreter with this ``sys.path`` can import the loaded module ``name``.

    ``importlib.util.find_spec`` cannot tell: for a loaded module it only repeats what its loader
    said.
    """
    module = sys.modules.get(name)
    parent, _, last = name.rpartition(".")
    if module is None or (parent and not _importable(parent)):
        return False
    own = getattr(getattr(module, "__spec__", None), "name", name)
    if own != name and parent and getattr(sys.modules[parent], last, None) is module:
        # Its package gives it a second name, as collections does to collections.abc (Python 3.13).
        return _importable(own)
    folders = getattr(sys.modules[parent], "__path__", ()) if parent else None
    spec = None
    for finder in sys.meta_path:
        spec = finder.find_spec(name, folders)
        if spec is not None:
            break
    file = getattr(module, "__file__", None)
    if spec is None:
        # Some packages make modules while they are imported: torch._C._nn, six.moves.
        return bool(parent) and file is None and getattr(sys.modules[parent], last, None) is module
    if file is None or spec.origin is None or not spec.has_location:
        return True
    return _same_file(spec.origin, file)


def _same_file(first: str, second: str) -> bool:
    try:
        return Path(first).samefile(second)
    except OSError:  # the file is in a zip archive, or is gone
        return first == second


def _attribute_at(value: object, path: list[str]) -> object:
    for name in path:
        value = getattr(value, name, None)
    return value


def _rebuild_cached(function: Callable[..., Any], options: dict[str, Any]) -> Any:
    return functools.lru_cache(**options)(function)


def _rebuild_property(function: Callable[[Any], Any], name: str | None) -> Any:
    rebuilt = functools.cached_property(function)
    rebuilt.attrname = name
    return rebuilt


_REDUCERS: dict[type, Callable[[Any], tuple[Callable[..., Any], tuple[Any, ...]]]] = {
    functools._lru_cache_wrapper: lambda value: (  # noqa: SLF001 - its class has no other name
        _rebuild_cached,
        (value.__wrapped__, value.cache_parameters()),
    ),
    functools.cached_property: lambda value: (_rebuild_property, (value.func, value.attrname)),
    typing.NewType: lambda value: (typing.NewType, (value.__name__, value.__supertype__)),
    typing.ParamSpec: lambda value: (typing.ParamSpec, (value.__name__,)),
    typing.TypeVarTuple: lambda value: (typing.TypeVarTuple, (value.__name__,)),
}
"""How to make values of some types again.

These types give a pickler only their name, or hold a lock, which cannot be pickled.
"""
