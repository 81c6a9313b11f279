"""Tables of what the code does and leaves: events, metrics, errors, keys."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator

from docs._ext.files import FILES, STATE_KEYS, XCOMS
from docs._ext.source import (
    Class,
    class_at,
    classes,
    constants,
    one_line,
    rows_of_rst_table,
    table,
    trees,
)

__all__ = ["TABLES", "errors", "metric_names", "to_do"]

_TO_DO = "What to do:"

_ROOTS = (
    ("llutil/errors.py", "LaunchError"),
    ("llutil/command_line/errors.py", "CommandError"),
    ("airflow_provider/results/reference.py", "StoredResultError"),
    ("airflow_provider/results/result_readers.py", "MissingRankError"),
)
"""The roots of all errors that people may see."""


def _docstring(module: str) -> str:
    return ast.get_docstring(trees()[module]) or ""


# Errors.


def errors() -> list[Class]:
    """Every class of errors that people may see, each after what it is derived from. A private
    class is not told.
    """

    def below(root: Class) -> Iterator[Class]:
        yield root
        for one in classes():
            if root.name in one.bases and not one.name.startswith("_"):
                yield from below(one)

    return [one for root in _ROOTS for one in below(class_at(*root))]


def _inherited(one: Class, told: Callable[[Class], str]) -> str:
    """What a class or the nearest of its bases tells."""
    if text := told(one):
        return text
    above = (base for base in errors() if base.name in one.bases)
    return next((text for base in above if (text := _inherited(base, told))), "")


def to_do(one: Class) -> str:
    """What somebody does who meets this error."""
    return one_line(_inherited(one, lambda it: it.text.partition(_TO_DO)[2]))


def _errors() -> str:
    def failure_class(one: Class) -> str:
        name = _inherited(one, lambda it: it.values.get("default_class", ""))
        return name.removeprefix("FailureClass.").lower().replace("_", " ") or "none"

    rows: list[tuple[str, ...]] = []
    for one in errors():
        text = one_line(one.text.partition("\n\n")[0])
        retried = _inherited(one, lambda it: it.values.get("retryable", "")) == "True"
        again = ", repeated" if retried else ""
        of = f"`{one.name}`", f"{text} (`{one.bases[0]}`)", f"{failure_class(one)}{again}"
        rows.append((*of, to_do(one)))
    heads = "error", "what happened", "failure class", "what to do"
    return table(*heads, rows=rows)


# Events.


def _told_above(one: Class, key: str) -> str:
    """What the class's own docstring says of a value: ``KEY: text.``"""
    found = re.search(
        rf"\b{key}(?: and \w+)?(?:, \w+)?: (.*?\.)(?= [A-Z_]{{4,}}|$)", one_line(one.text)
    )
    return found[1] if found else ""


def _members(module: str, name: str, head: str) -> Callable[[], str]:
    """The values of an enumeration, or the documented names of a class."""

    def made() -> str:
        one = class_at(module, name)
        if one.values:
            rows: list[tuple[str, ...]] = [
                (f"`{value.strip(chr(39))}`", one.members.get(key) or _told_above(one, key))
                for key, value in one.values.items()
                if key.isupper()
            ]
        else:
            rows = [(f"`{key}`", text) for key, text in one.members.items()]
        return table(head, "", rows=rows)

    return made


def _subclasses(module: str, base: str, head: str) -> Callable[[], str]:
    def made() -> str:
        rows: list[tuple[str, ...]] = [
            (f"`{one.name.lower()}`", one_line(one.text))
            for one in classes()
            if one.module == module and base in one.bases
        ]
        return table(head, "", rows=rows)

    return made


def _records() -> str:
    rows: list[tuple[str, ...]] = [
        (f"`{one.name}`", one_line(one.text.partition("\n\n")[0]))
        for one in classes()
        if one.module.startswith("llutil/rendezvous/protocol/")
        and {"Kind", "OfRound"} & set(one.bases)
        and one.name != "OfRound"
    ]
    return table("record", "", rows=rows)


# Metrics.

_METRICS = {
    "airflow-metrics": "airflow_provider/telemetry/job_metrics.py",
    "spans": "airflow_provider/telemetry/job_spans.py",
    "torch-metrics": "llutil/agent/metrics.py",
}


def metric_names(name: str) -> list[str]:
    """The names in one table of metrics or spans."""
    found = rows_of_rst_table(_docstring(_METRICS[name]))
    return [row[0].strip("`") for row in found]


def _metrics(name: str) -> Callable[[], str]:
    def made() -> str:
        rows: list[tuple[str, ...]] = list(rows_of_rst_table(_docstring(_METRICS[name])))
        return table("name", "", rows=rows)

    return made


# Files and keys.


def _files() -> str:
    rows: list[tuple[str, ...]] = [
        (one.who, one.what, one.until, f"`{one.module}`") for one in FILES
    ]
    return table("who", "what", "until", "in the code", rows=rows)


def _record_keys() -> str:
    found = re.search(
        r"::\n\n((?: {4}.*\n)+)", _docstring("llutil/rendezvous/protocol/record_keys.py")
    )
    assert found is not None
    rows: list[tuple[str, ...]] = []
    for line in found[1].splitlines():
        key, text = re.findall(r"(run\.<run id>/\S+) +(.*)", line)[0]
        rows.append((f"`{key}`", text))
    return table("key", "", rows=rows)


def _constants(*wanted: tuple[str, str]) -> Callable[[], str]:
    """The values of constants, which are (module, name), with their docstrings."""

    def made() -> str:
        known = {(one.module, one.name): one for one in constants()}
        rows: list[tuple[str, ...]] = []
        for module, name in wanted:
            one = known[f"airflow_provider/{module}.py", name]
            rows.append((f"`{one.value}`", one.text, f"`{one.module}`"))
        return table("key", "", "in the code", rows=rows)

    return made


TABLES: dict[str, Callable[[], str]] = {
    "errors": _errors,
    "failure-classes": _members("llutil/failure.py", "FailureClass", "class"),
    "flags": _members("llutil/events/page_flags.py", "PageFlags", "flag"),
    "node-states": _members("llutil/agent_socket/messages.py", "State", "state"),
    "orders": _members("llutil/agent_socket/messages.py", "Order", "order"),
    "round-ends": _members("llutil/agent_socket/round_end.py", "RoundEndKind", "end"),
    "causes": _members("llutil/rendezvous/protocol/records.py", "Cause", "cause"),
    "messages": _subclasses("llutil/task_link/job_events.py", "Tagged", "message"),
    "records": _records,
    "airflow-metrics": _metrics("airflow-metrics"),
    "spans": _metrics("spans"),
    "torch-metrics": _metrics("torch-metrics"),
    "files": _files,
    "record-keys": _record_keys,
    "state-keys": _constants(*STATE_KEYS),
    "xcoms": _constants(*XCOMS),
}
