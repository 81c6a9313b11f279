"""No regular expression of the product takes time that grows faster than its text.

Much of what they read was printed by users' programs: a line may have 64 KiB, a message more.
"""

from __future__ import annotations

import ast
import itertools
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from airflow_provider.agent_client import log_levels

ROOT = Path(__file__).parents[2]
SHORT, LONG = 1 << 12, 1 << 16
LIMIT = 0.1
"""Seconds of processor time for a long text. What is linear takes a tenth of it."""
CUT = {"airflow_provider/agent_client/log_levels.py": log_levels._LOOKED_AT}
"""Files that give their expressions no text longer than so many characters."""
TRIES = 5
SLOWEST = 3
"""Texts that are tried in their long form."""
METHODS = {"match", "fullmatch", "search", "sub", "findall", "finditer", "split"}


def product() -> list[Path]:
    return [path for room in ("llutil", "airflow_provider") for path in (ROOT / room).rglob("*.py")]


def expressions() -> Iterator[tuple[str, re.Pattern[Any], str]]:
    """Each expression that the product compiles, its place, and how it is used there."""
    for path in product():
        tree = ast.parse(path.read_text())
        used: dict[str, set[str]] = {}
        for node in ast.walk(tree):
            match node:
                case ast.Attribute(value=ast.Name(id=name), attr=attribute):
                    used.setdefault(name, set()).add(attribute)
        for node in ast.walk(tree):
            match node:
                case ast.Assign(
                    targets=[ast.Name(id=name)],
                    value=ast.Call(func=ast.Attribute(value=ast.Name(id="re"), attr="compile")),
                ):
                    pattern = eval(compile(ast.Expression(node.value), "re", "eval"), {"re": re})
                    for method in used[name] & METHODS:
                        yield f"{path.relative_to(ROOT)}:{name}", pattern, method


FOUND = list(expressions())


def test_every_expression_is_one_that_is_found_here() -> None:
    """A constant of a module, by ``re.compile``: else this test would not see it."""
    compiled = {where for where, _, _ in FOUND}
    for path in product():
        calls = re.findall(r"\bre\.(?!compile\b)([a-z]+)\(|re\.compile\(", path.read_text())
        here = [where for where in compiled if where.startswith(f"{path.relative_to(ROOT)}:")]
        assert len(calls) == len(here), path
        assert not any(calls), f"{path} uses re.{calls}"


def pieces(pattern: re.Pattern[Any]) -> set[str]:
    """Short texts that the expression has an eye on: its literals, one by one and in runs."""
    source = pattern.pattern if isinstance(pattern.pattern, str) else pattern.pattern.decode()
    parsed = re._parser.parse(source, pattern.flags & re.VERBOSE)  # type: ignore[attr-defined]
    found = {"a", "A", "1", ".", ":", " ", "-", "_", "\x1b", "\x1b[", "0x", "[", "(pid 1) "}

    def walk(items: Any) -> None:
        run = ""
        for item in items:
            name, value = str(item[0]), item[1]
            if name == "LITERAL":
                run += chr(value)
                continue
            if run:
                found.update((run, run[0], run[-1]))
            run = ""
            for part in value if isinstance(value, tuple | list) else (value,):
                if isinstance(part, list):
                    for branch in part:
                        if hasattr(branch, "data"):
                            walk(branch)
                elif hasattr(part, "data"):
                    walk(part)
        if run:
            found.update((run, run[0], run[-1]))

    walk(parsed)
    return found


def texts(pattern: re.Pattern[Any], size: int) -> Iterator[str]:
    """Texts that make an expression try much in vain: a beginning, much of the same, an end."""
    known = sorted(pieces(pattern))
    firsts = ["", "2026-11-22 08:52:44"] + [one for one in known if len(one) > 2]
    pumps = known + ["".join(pair) for pair in itertools.permutations(known, 2) if len(pair) < 9]
    for pump in pumps:
        yield (pump * (size // len(pump) + 1))[:size] + "\0"
    for first, pump in itertools.product(firsts, known):
        yield first + (pump * (size // len(pump) + 1))[:size] + "\0"


def seconds(pattern: re.Pattern[Any], method: str, text: str) -> float:
    """Processor time. A machine that does much else only ever adds to it, so one that is too long
    is taken again.
    """
    times = (_once(pattern, method, text) for _ in range(TRIES))
    return next((taken for taken in times if taken < LIMIT), LIMIT)


def _once(pattern: re.Pattern[Any], method: str, text: str) -> float:
    subject = text.encode() if isinstance(pattern.pattern, bytes) else text
    began = time.thread_time()
    found = getattr(pattern, method)(*(("", subject) if method == "sub" else (subject,)))
    if method == "finditer":
        list(found)
    return time.thread_time() - began


@pytest.mark.parametrize(
    ("where", "pattern", "method"), FOUND, ids=[f"{where}.{method}" for where, _, method in FOUND]
)
def test_its_time_grows_as_its_text_does(where: str, pattern: re.Pattern[Any], method: str) -> None:
    cut = CUT.get(where.partition(":")[0], LONG)
    short = [(seconds(pattern, method, text), text) for text in texts(pattern, min(SHORT, cut))]
    assert max(short) < (LIMIT, ""), f"{where} with {max(short)[1][:60]!r}"
    worst = {text[:60] for _, text in sorted(short)[-SLOWEST:]}
    long = (text for text in texts(pattern, min(LONG, cut)) if text[:60] in worst)
    for text in itertools.islice(long, SLOWEST):
        took = seconds(pattern, method, text)
        assert took < LIMIT, f"{where}: too long for {len(text)} characters, {text[:60]!r}"
