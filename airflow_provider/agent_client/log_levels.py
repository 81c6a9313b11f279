"""Chooses the level of a line that a program printed, for the task's log.

Airflow itself logs all that a task prints on stderr as errors. Training programs print progress
bars and logs there. So here a line is an error or a warning only if its own text says so. This
module decides from the line alone. It may import only the standard library.
"""

from __future__ import annotations

import logging
import re

__all__ = ["level_of"]

# Characters at the start of a line. A line may have 64 KiB.
_LOOKED_AT = 300
_ERROR = re.compile(
    r"""
      # The formats of logging: [ERROR], ERROR:root:
      \W{0,3}(ERROR|CRITICAL|FATAL)\b
      # torch's format: E1122 08:52:44.123 ... and [F1122 ...
    | (\[rank\d+\]:\s*)?\[?[EF]\d{3,4}\s\d\d:\d\d:\d\d
      # A date, and then the first level that is named.
    | \d{4}-\d\d-\d\d[T\s][\d:.,+Z-]+\W
      ((?!\b(DEBUG|INFO|WARN|WARNING)\b).){0,60}\b(ERROR|CRITICAL|FATAL)\b
      # The first line of a traceback, and its last.
    | (\[rank\d+\]:\s*)?Traceback\s\(most\srecent\scall\slast\):
    | ([A-Za-z_]\w*\.)*[A-Z]\w*(Error|Exception)(:\s|$)
    """,
    re.VERBOSE,
)
_WARNING = re.compile(
    r"""
      \W{0,3}WARN(ING)?\b
    | (\[rank\d+\]:\s*)?\[?W\d{3,4}\s\d\d:\d\d:\d\d
    | \d{4}-\d\d-\d\d[T\s][\d:.,+Z-]+\W((?!\b(DEBUG|INFO)\b).){0,60}\bWARN(ING)?\b
      # The format of warnings.warn.
    | \S+:\d+:\s\w*Warning:\s
    """,
    re.VERBOSE,
)


def level_of(stream: str, text: str) -> int:
    """The ``logging`` level for one line of ``stream``, which is ``stdout`` or ``stderr``."""
    if stream == "stdout":
        return logging.INFO
    start = text if len(text) <= _LOOKED_AT else f"{text[:_LOOKED_AT]} ..."
    if _ERROR.match(start):
        return logging.ERROR
    if _WARNING.match(start):
        return logging.WARNING
    return logging.INFO
