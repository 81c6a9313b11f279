"""Checks and reads the parameter ``env``: variables that are added to a job's environment."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from airflow_provider.parameters.launch_config import is_number
from airflow_provider.parameters.shown_value import kind_of, shown
from llutil.errors import Problem

__all__ = ["env_problems", "environment_of"]


def env_problems(given: Any) -> list[Problem]:
    """What is wrong with ``env``. No value is shown, since one may be a secret."""
    if given is None:
        return []
    if not isinstance(given, Mapping):
        return [Problem("env", f"is {kind_of(given)}; wanted a dict of texts or numbers by name")]
    problems = []
    wrong = [text for name, value in given.items() if (text := _entry_problem(name, value))]
    if wrong:
        text = f"has {', '.join(wrong)}; wanted a dict of texts or numbers by name"
        problems.append(Problem("env", text))
    texts = [name for name in given if isinstance(name, str)]
    wrong = [repr(_beginning(name)) for name in texts if not name or "=" in name]
    if wrong:
        text = f"has names that begin with {', '.join(wrong)}; no name may be empty or hold '='"
        problems.append(Problem("env", text))
    return problems


def environment_of(given: Any) -> dict[str, str]:
    """The environment variables that ``env`` adds; none if it is not a dict, which ``env_problems``
    refuses before anything starts.
    """
    return {name: str(given[name]) for name in given} if isinstance(given, Mapping) else {}


def _entry_problem(name: Any, value: Any) -> str:
    """What is wrong with one entry, in words; empty if nothing is."""
    if not isinstance(name, str):
        return f"the name {shown(name)}"
    if not isinstance(value, str) and not is_number(value):
        return f"{kind_of(value)} for {_beginning(name)!r}"
    return f"a NUL character in {_beginning(name)!r}" if "\0" in f"{name}{value}" else ""


def _beginning(name: str) -> str:
    """``name`` without what follows an ``=``: that may be a value."""
    before, sign, _ = name.partition("=")
    return before + sign
