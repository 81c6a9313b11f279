"""A Python file, imported as Airflow imports a DAG file: under a name that nobody else can
import.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType

__all__ = ["imported_as_dag_file"]


@contextmanager
def imported_as_dag_file(name: str, path: Path) -> Iterator[ModuleType]:
    """The module ``name`` for as long as the context lasts."""
    loader = SourceFileLoader(name, str(path))
    spec = importlib.util.spec_from_loader(name, loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        loader.exec_module(module)
        yield module
    finally:
        del sys.modules[name]
