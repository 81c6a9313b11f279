"""Run the benchmarks beside this file, each in turn: ``python -m tests.bench [name ...]``.

A benchmark is a module with a function ``main()`` that prints a small table; to add one, add a
file.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path


def main(names: list[str]) -> None:
    """Run those named, or all in alphabetical order."""
    found = sorted(path.stem for path in Path(__file__).parent.glob("[!_]*.py"))
    for name in names or found:
        importlib.import_module(f"tests.bench.{name}").main()


if __name__ == "__main__":
    main(sys.argv[1:])
