"""Checks the parameter ``links``: pages that Airflow's UI shows on a task."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from airflow_provider.parameters.shown_value import kind_of, shown
from llutil.errors import Problem

__all__ = ["link_names", "link_problems", "link_url"]


def link_problems(given: Any) -> list[Problem]:
    """What is wrong with ``links``. A URL is not shown: it may hold a token."""
    if given is None:
        return []
    if not isinstance(given, Mapping):
        text = (
            f"is {kind_of(given)}; wanted a dict of names and URLs, such as "
            "{'MLflow': 'https://...'}"
        )
        return [Problem("links", text)]
    problems = []
    for name, url in given.items():
        if not _is_name(name):
            problems.append(Problem("links", f"has the name {shown(name)}; wanted a text"))
        elif not _is_url(url):
            text = (
                f"has {kind_of(url)} for {name!r}; wanted a URL that begins with http://, "
                "https:// or /"
            )
            problems.append(Problem("links", text))
    return problems


def link_names(given: Any) -> list[str]:
    """The names in ``links`` that can be shown; none if it is not a dict yet, or never."""
    return [name for name in given if _is_name(name)] if isinstance(given, Mapping) else []


def link_url(given: Any, name: str) -> str:
    """The URL that ``links`` has for ``name``; empty if there is none that may be shown."""
    url = given.get(name) if isinstance(given, Mapping) else None
    return str(url) if _is_url(url) else ""


def _is_name(name: Any) -> bool:
    return isinstance(name, str) and bool(name.strip())


def _is_url(url: Any) -> bool:
    return isinstance(url, str) and url.startswith(("http://", "https://", "/"))
