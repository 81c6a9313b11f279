"""Reads facts out of the project's source, without importing it."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

__all__ = [
    "ROOT",
    "Class",
    "Constant",
    "class_at",
    "classes",
    "constants",
    "fields",
    "one_line",
    "rows_of_rst_table",
    "table",
    "trees",
]

ROOT = Path(__file__).parents[2]
"""The project's folder."""


@dataclass(frozen=True, slots=True)
class Constant:
    """A name of a module, or of a class, with a text as its value. ``text`` is its docstring."""

    module: str
    name: str
    value: str
    text: str


@dataclass(frozen=True, slots=True)
class Class:
    """A class. ``values`` are what its body assigns, and ``members`` its documented names."""

    module: str
    name: str
    bases: tuple[str, ...]
    text: str
    values: dict[str, str] = field(default_factory=dict)
    members: dict[str, str] = field(default_factory=dict)


@cache
def trees() -> dict[str, ast.Module]:
    """Every module's source, by its path below the project's folder."""
    paths = [
        path for name in ("llutil", "airflow_provider") for path in (ROOT / name).rglob("*.py")
    ]
    return {
        path.relative_to(ROOT).as_posix(): ast.parse(path.read_text()) for path in sorted(paths)
    }


def _documented(body: list[ast.stmt]) -> Iterator[tuple[list[str], ast.expr | None, str]]:
    """The names that a body assigns or declares, the value, and the docstring that follows."""
    for number, one in enumerate(body):
        if isinstance(one, ast.Assign) and all(isinstance(t, ast.Name) for t in one.targets):
            names, value = [t.id for t in one.targets if isinstance(t, ast.Name)], one.value
        elif isinstance(one, ast.AnnAssign) and isinstance(one.target, ast.Name):
            names, value = [one.target.id], one.value
        else:
            continue
        after = body[number + 1] if number + 1 < len(body) else None
        text = ""
        if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant):
            text = one_line(str(after.value.value))
        yield names, value, text


@cache
def constants() -> tuple[Constant, ...]:
    """Every constant of a module that is a text, once for each module that has it."""
    return tuple(
        Constant(module, name, value.value, text)
        for module, tree in trees().items()
        for names, value, text in _documented(tree.body)
        for name in names
        if isinstance(value, ast.Constant) and isinstance(value.value, str)
    )


@cache
def classes() -> tuple[Class, ...]:
    """Every class."""
    found = []
    for module, tree in trees().items():
        for one in ast.walk(tree):
            if isinstance(one, ast.ClassDef):
                body = list(_documented(one.body))
                made = Class(
                    module,
                    one.name,
                    tuple(ast.unparse(base) for base in one.bases),
                    ast.get_docstring(one) or "",
                    {n: ast.unparse(v) for names, v, _ in body if v is not None for n in names},
                    {n: text for names, _, text in body if text for n in names},
                )
                found.append(made)
    return tuple(found)


def class_at(module: str, name: str) -> Class:
    """One class of a module."""
    return next(one for one in classes() if (one.module, one.name) == (module, name))


def one_line(text: str) -> str:
    """A docstring as one line of Markdown."""
    return " ".join(text.split()).replace("``", "`")


def fields(docstring: str) -> dict[str, str]:
    """What the ``:param name:`` fields of a docstring say."""
    field = re.compile(r"^\s*:param (\w+): *(.*?)(?=^\s*:\w|^\s*$|\Z)", re.MULTILINE | re.DOTALL)
    found = field.findall(docstring)
    return {name: one_line(text) for name, text in found}


def rows_of_rst_table(docstring: str) -> list[tuple[str, str]]:
    """The rows of a simple table of two columns in a docstring."""
    edges = list(re.finditer(r"^(=+ +)(=+)$", docstring, re.MULTILINE))
    begin, end = edges[0], edges[-1]
    width = len(begin[1])
    rows: list[tuple[str, str]] = []
    for line in docstring[begin.end() : end.start()].strip("\n").splitlines():
        left, right = line[:width].strip(), line[width:].strip()
        if left:
            rows.append((left, right))
        elif rows:
            rows[-1] = (rows[-1][0], f"{rows[-1][1]} {right}")
    return [(one_line(left), one_line(right)) for left, right in rows]


def table(*heads: str, rows: list[tuple[str, ...]]) -> str:
    """A table in Markdown."""
    lines = [heads, ("---",) * len(heads), *rows]
    return "\n".join(
        f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines
    )
