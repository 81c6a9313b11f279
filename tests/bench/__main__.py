"""Run benchmarks, and write what they found into ``benchmarks/``: ``python -m tests.bench [name
...]``; all of them, if none is named.

``--write`` measures nothing: it fills the tables of README and docs with the report's figures.

A benchmark is a module beside this file with a function ``measure()`` that yields
``Measurement``s; to add one, add a file. Its docstring is in the report.
"""

from __future__ import annotations

import argparse
import importlib
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from tests.bench.report.document import Document, Part
from tests.bench.report.machine import commit, load, machine
from tests.bench.report.measurement import Measurement
from tests.bench.report.texts import filled, texts
from tests.bench.report.words import progress
from tests.bench.report.written import write_report


def main(words: list[str]) -> None:
    """Do what the command line says."""
    found = sorted(path.stem for path in Path(__file__).parent.glob("[!_]*.py"))
    parser = argparse.ArgumentParser(prog="python -m tests.bench")
    parser.add_argument("--write", action="store_true", help="fill the tables of README and docs")
    parser.add_argument("names", nargs="*", metavar="name", help=f"any of {', '.join(found)}")
    asked = parser.parse_args(words)
    if unknown := set(asked.names) - set(found):
        parser.error(f"no benchmark {', '.join(sorted(unknown))}; there are {', '.join(found)}")
    if not asked.write:
        _measure(asked.names or found)
    report = Document.load()
    write_report(report)
    if asked.write:
        for path in texts():
            path.write_text(filled(path.read_text(), report))


def _measure(names: list[str]) -> None:
    """Run these, and keep what each has found as soon as it has ended."""
    began = time.monotonic()
    for number, name in enumerate(names, 1):
        print(f"{name} ({number} of {len(names)}, after {time.monotonic() - began:.0f} s)")
        part = _run(name)
        Document.load().with_part(name, part).save()
    print(f"{len(names)} benchmarks took {time.monotonic() - began:.0f} s")


def _run(name: str) -> Part:
    module = importlib.import_module(f"tests.bench.{name}")
    date, before, began = datetime.now(UTC), load(), time.monotonic()
    figures = list(_told(name, module.measure()))
    return Part.of(
        figures,
        about=" ".join(str(module.__doc__).split("\n\n")[0].split()),
        command=f"python -m tests.bench {name}",
        date=f"{date:%Y-%m-%d %H:%M} UTC",
        commit=commit(),
        seconds=round(time.monotonic() - began, 1),
        load_before=before,
        load_after=load(),
        machine=machine(),
    )


def _told(name: str, found: Iterator[Measurement]) -> Iterator[Measurement]:
    """These, each shown as soon as it is there."""
    for one in found:
        print(f"  {progress(name, one)}", flush=True)
        yield one


if __name__ == "__main__":
    main(sys.argv[1:])
