"""Whether the modules that this process has imported are still those that are installed.

It compares the folders of ``sys.path``, which change when a package is installed or removed, and
files of torch and of this package, which may change in place. This module may import only the
standard library.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

__all__ = ["FilesOnDisk"]


class FilesOnDisk:
    """What is imported by now, as it is on disk now."""

    def __init__(self) -> None:
        self._before = _marks(_paths())

    def changed(self) -> str:
        """The path of a file or folder that has changed; "" if there is none."""
        now = _marks(self._before)
        return next((path for path, mark in now.items() if mark != self._before[path]), "")


def _paths() -> set[str]:
    own = Path(__file__).parents[1]
    paths = {entry for entry in sys.path if entry} | {sys.executable}
    for name, module in tuple(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if file and (name in {"torch", "torch.version"} or own in Path(file).parents):
            paths.add(file)
    return paths


def _marks(paths: Iterable[str]) -> Mapping[str, tuple[int, int] | None]:
    return {path: _mark(path) for path in paths}


def _mark(path: str) -> tuple[int, int] | None:
    try:
        found = os.stat(path)  # noqa: PTH116 - hundreds of them, before each fork
    except OSError:
        return None
    return found.st_mtime_ns, found.st_ino
