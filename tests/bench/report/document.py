"""``benchmarks/report.json``: what every benchmark found when it ran last, and under what
conditions.

This module may import nothing but the standard library and ``measurement``.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tests.bench.report.measurement import Measurement

__all__ = ["JSON", "ROOT", "Document", "Part"]

ROOT = Path(__file__).parents[3]
JSON = ROOT / "benchmarks" / "report.json"
_VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One run of one benchmark. ``load_before`` and ``load_after`` are the machine's load averages
    of a minute, so that a reader sees whether others used it, or None if nobody noted them;
    ``seconds`` is how long it took.
    """

    about: str
    command: str
    date: str
    commit: str
    seconds: float | None
    load_before: float | None
    load_after: float | None
    machine: Mapping[str, str]
    figures: Mapping[str, Measurement]

    @classmethod
    def of(cls, figures: Iterable[Measurement], **facts: Any) -> Part:
        """A part with these figures.

        :raises ValueError: two of them have one name.
        """
        found: dict[str, Measurement] = {}
        for one in figures:
            if one.key in found:
                raise ValueError(f"two figures are called {one.key!r}")
            found[one.key] = one
        return cls(figures=found, **facts)


@dataclass(frozen=True, slots=True)
class Document:
    """All parts, by the name of their benchmark."""

    parts: Mapping[str, Part]

    @classmethod
    def load(cls, path: Path = JSON) -> Document:
        """What is in the file; nothing, if there is none.

        :raises ValueError: it is of another version of this program.
        """
        if not path.exists():
            return cls({})
        said = json.loads(path.read_text())
        if said["version"] != _VERSION:
            raise ValueError(f"{path} has version {said['version']}, wanted {_VERSION}")
        return cls({name: _read(form) for name, form in said["benchmarks"].items()})

    def save(self, path: Path = JSON) -> None:
        """Write it."""
        parts = {name: _form(self.parts[name]) for name in sorted(self.parts)}
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps({"version": _VERSION, "benchmarks": parts}, indent=1) + "\n")

    def with_part(self, name: str, part: Part) -> Document:
        """It with this part in the place of the one of that name."""
        return Document({**self.parts, name: part})

    def figure(self, name: str) -> Measurement:
        """The one of that whole name: ``launch.cold.2``.

        :raises KeyError: there is none; the text has the names of its benchmark's.
        """
        benchmark, _, key = name.partition(".")
        figures = self.parts[benchmark].figures if benchmark in self.parts else {}
        if key not in figures:
            raise KeyError(f"no figure {name!r} in the report; {benchmark!r} has {list(figures)}")
        return figures[key]

    def figures(self, benchmark: str, prefix: str) -> list[Measurement]:
        """The figures whose names begin so, in the order in which they were measured.

        :raises KeyError: there are none.
        """
        figures = self.parts[benchmark].figures if benchmark in self.parts else {}
        found = [one for key, one in figures.items() if key.startswith(prefix)]
        if not found:
            raise KeyError(f"no figures {prefix!r} of {benchmark!r} in the report")
        return found

    def cases(self, benchmark: str, name: str) -> list[Measurement]:
        """The figures of one name, one for each case, in the order in which they were measured.

        :raises KeyError: there are none.
        """
        figures = self.parts[benchmark].figures if benchmark in self.parts else {}
        found = [one for one in figures.values() if one.name == name]
        if not found:
            raise KeyError(f"no figures {name!r} of {benchmark!r} in the report")
        return found


def _form(part: Part) -> dict[str, Any]:
    facts = {**asdict(part), "machine": dict(part.machine)}
    return facts | {"figures": {key: one.form() for key, one in part.figures.items()}}


def _read(form: Mapping[str, Any]) -> Part:
    figures = {key: Measurement.read(key, one) for key, one in form["figures"].items()}
    return Part(**{**form, "figures": figures})
