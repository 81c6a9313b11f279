"""Finds what is wrong with the fields of a ``LaunchConfig`` that say where output goes.

This module may import only the standard library, ``llutil.errors`` and ``llutil.std``: parsing a
DAG runs it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from llutil.errors import Problem
from llutil.std import ALL_RANKS, AUTO_RANKS, LOG_LINES, Std

__all__ = ["MOST_WORKERS", "is_count", "output_problems"]

MOST_WORKERS = 256
"""How many workers a node may have: an event page has so many slots."""


def output_problems(config: Any) -> Iterator[Problem]:
    """Each problem of the fields about output."""
    yield from _streams("redirects", config.redirects)
    yield from _streams("tee", config.tee)
    yield from _local_ranks_filter(config.local_ranks_filter)
    yield from _filters("duplicate_stdout_filters", config.duplicate_stdout_filters)
    yield from _filters("duplicate_stderr_filters", config.duplicate_stderr_filters)
    template = config.log_line_prefix_template
    if not isinstance(template, str | None) or not (template or "").isprintable():
        text = f"is {template!r}; wanted a text of one line, such as '[${{role_name}}${{rank}}]: '"
        yield Problem("log_line_prefix_template", text)
    if config.log_lines not in LOG_LINES:
        wanted = ", ".join(map(repr, LOG_LINES))
        yield Problem("log_lines", f"is {config.log_lines!r}; wanted one of {wanted}")


def is_count(value: object) -> bool:
    """Whether ``value`` is a whole number."""
    return isinstance(value, int) and not isinstance(value, bool)


def _streams(name: str, option: Any) -> Iterator[Problem]:
    values = list(option.values()) if isinstance(option, Mapping) else [option]
    ranks = list(option) if isinstance(option, Mapping) else []
    for value in values:
        if not is_count(value) or not 0 <= value <= Std.ALL:
            yield Problem(name, f"has {value!r}; wanted a Std, or a dict of local rank to Std")
            return
    for rank in ranks:
        if not is_count(rank) or rank < 0:
            yield Problem(name, f"has the key {rank!r}; wanted local ranks: 0, 1, ...")
            return


def _local_ranks_filter(ranks: Any) -> Iterator[Problem]:
    if ranks is None or ranks in (AUTO_RANKS, ALL_RANKS):
        return
    if isinstance(ranks, str | Mapping) or not isinstance(ranks, Collection):
        text = f"is {ranks!r}; wanted a set of local ranks, 'auto' or 'all'"
        yield Problem("local_ranks_filter", text)
    elif not all(is_count(rank) and rank >= 0 for rank in ranks):
        yield Problem("local_ranks_filter", f"is {ranks!r}; wanted local ranks: 0, 1, ...")


def _filters(name: str, texts: Any) -> Iterator[Problem]:
    if texts is None:
        return
    is_list = isinstance(texts, Collection) and not isinstance(texts, str | bytes | Mapping)
    if not is_list or not all(isinstance(text, str) and text for text in texts):
        yield Problem(name, f"is {texts!r}; wanted a list of texts to look for, or None")
