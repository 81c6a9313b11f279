"""Finds what is wrong with the fields of a ``LaunchConfig`` that are about checkpoints.

It looks at values alone: whether a store can be written to is found out by the agent, before the
first worker starts. This module may import only the standard library, ``llutil.checkpoints``,
``llutil.errors``, ``llutil.launcher.config`` and ``llutil.launcher.output_checks``: parsing a DAG
runs it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

from llutil.checkpoints.interval import interval
from llutil.checkpoints.place import RESUMES
from llutil.errors import Problem
from llutil.launcher.config import LaunchConfig
from llutil.launcher.output_checks import is_count

__all__ = ["checkpoint_problems"]

_WANTED = "wanted an absolute path, or a URI that fsspec knows, such as 's3://bucket/checkpoints'"
_ONE_SLASH = re.compile(r"[a-z][a-z0-9+.-]+:(?!//)")
_URI = re.compile(r"[a-z][a-z0-9+.-]*://.*", re.DOTALL)


def checkpoint_problems(config: LaunchConfig) -> Iterator[Problem]:
    """What is wrong with ``checkpoint_path`` and the fields beside it."""
    yield from _path(config)
    if not isinstance(config.checkpoint_job, str):
        yield Problem("checkpoint_job", f"is {config.checkpoint_job!r}; wanted a string")
    if config.checkpoint_every is not None:
        yield from _every(config)
    if not is_count(config.checkpoint_keep) or config.checkpoint_keep < 1:
        text = f"is {config.checkpoint_keep!r}; wanted how many checkpoints are kept, at least 1"
        yield Problem("checkpoint_keep", text)
    if config.resume not in RESUMES:
        text = f"is {config.resume!r}; wanted one of {', '.join(map(repr, RESUMES))}"
        yield Problem("resume", text)


# A function that checks the type of a field takes ``config`` as ``Any``. With the declared type,
# mypy would report the check as unreachable code.


def _path(config: Any) -> Iterator[Problem]:
    given = config.checkpoint_path
    if given is None:
        return
    path = os.fspath(given) if isinstance(given, str | os.PathLike) else None
    if not isinstance(path, str) or not path.strip() or "\0" in path:
        yield Problem("checkpoint_path", f"is {given!r}; {_WANTED}")
    elif "://" in path:
        yield from _uri(path)
    elif _ONE_SLASH.match(path):
        shown = path.rpartition("@")[2]  # before it stands a password, maybe
        text = f"is {shown!r}; wanted '//' after the ':' of a URI, or a path that begins with '/'"
        yield Problem("checkpoint_path", text)
    elif not path.startswith(("/", "~")) and is_count(config.max_nodes) and config.max_nodes > 1:
        text = (
            f"is {path!r}, which is another folder on each of {config.max_nodes} nodes; {_WANTED}"
        )
        yield Problem("checkpoint_path", text, ("max_nodes",))


def _uri(uri: str) -> Iterator[Problem]:
    try:
        # A chain of fsspec's (simplecache::ftp://...) has its host in the last part.
        has_password = urlsplit(uri.rpartition("::")[2]).password is not None
    except ValueError:
        has_password = "@" in uri
    if has_password:
        text = (
            f"is {uri.partition('://')[0]}://... with a password in it, which logs would show; "
            "give fsspec the credentials by its configuration or by variables"
        )
        yield Problem("checkpoint_path", text)
    elif not _URI.fullmatch(uri):
        yield Problem("checkpoint_path", f"is {uri.rpartition('@')[2]!r}; {_WANTED}")


def _every(config: LaunchConfig) -> Iterator[Problem]:
    try:
        interval(config.checkpoint_every)
    except ValueError as error:
        yield Problem("checkpoint_every", str(error))
    else:
        if config.checkpoint_path is None:
            text = f"is {config.checkpoint_every!r}, but there is no checkpoint_path to save below"
            yield Problem("checkpoint_every", f"{text}; wanted both", ("checkpoint_path",))
