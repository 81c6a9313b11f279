"""Finds the code of a script or a module, and makes the ``__main__`` to run it in, as plain Python
does.

It runs in the worker, and imports nothing of ours but the errors.
"""

from __future__ import annotations

import importlib.machinery
import importlib.util
import io
import sys
import types
from pathlib import Path

from llutil.errors import ConfigError

__all__ = ["Main", "module", "script"]

Main = tuple[types.CodeType, types.ModuleType]
"""Code, and the new ``__main__`` module to run it in."""


def script(path: str) -> Main:
    """A file, as ``python path`` would run it.

    :raises Exception: it cannot be read or compiled.
    """
    full = str(Path(path).absolute())
    with io.open_code(full) as file:
        code = compile(file.read(), full, "exec", dont_inherit=True)
    sys.path.insert(0, str(Path(full).resolve().parent))
    main = types.ModuleType("__main__")
    main.__file__ = full
    main.__loader__ = importlib.machinery.SourceFileLoader("__main__", full)
    return code, main


def module(name: str) -> Main:
    """A module, as ``python -m name`` would run it.

    :raises ConfigError: no module of that name can be run.
    """
    try:
        spec = importlib.util.find_spec(name)
    except ModuleNotFoundError as error:
        if error.name is None or not name.startswith(error.name):
            raise  # a parent package exists, and its own import failed
        spec = None
    if spec is not None and spec.submodule_search_locations is not None:
        spec = importlib.util.find_spec(f"{name}.__main__")
    get_code = getattr(spec.loader, "get_code", None) if spec else None
    if spec is None or get_code is None:
        raise ConfigError(
            f"no module named {name!r} that can be run, on the worker's sys.path {sys.path}"
        )
    code = get_code(spec.name)
    if code is None:
        raise ConfigError(f"module {name!r} has no Python code to run")
    main = types.ModuleType("__main__")
    main.__spec__ = spec
    main.__package__ = spec.parent
    main.__file__ = spec.origin
    main.__loader__ = spec.loader
    return code, main
