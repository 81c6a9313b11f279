"""At which level a line that a program printed belongs in the task's log.

Airflow itself logs all that a task prints on stderr as errors. Trainers print progress bars and
logs there, so here a line is an error or a warning only when it says so itself. This module decides
from the line alone, and imports nothing but the standard library.
"""

from __future__ import annotations

import logging
import re

__all__ = ["level_of"]

_ERROR = re.compile(
    r"""
      \W{0,3}(ERROR|CRITICAL|FATAL)\b                        # logging's formats, [ERROR], ERROR:root:
    | (\[rank\d+\]:\s*)?\[?[EF]\d{3,4}\s\d\d:\d\d:\d\d       # torch: E1122 08:52:44.123 ... and [F1122 ...
    | \d{4}-\d\d-\d\d[T\s][\d:.,+Z-]+\W                      # a date, and then the first level named
      ((?!\b(DEBUG|INFO|WARN|WARNING)\b).){0,60}\b(ERROR|CRITICAL|FATAL)\b
    | (\[rank\d+\]:\s*)?Traceback\s\(most\srecent\scall\slast\):
    | ([A-Za-z_]\w*\.)*[A-Z]\w*(Error|Exception)(:\s|$)      # a traceback's last line
    """,
    re.VERBOSE,
)
_WARNING = re.compile(
    r"""
      \W{0,3}WARN(ING)?\b
    | (\[rank\d+\]:\s*)?\[?W\d{3,4}\s\d\d:\d\d:\d\d
    | \d{4}-\d\d-\d\d[T\s][\d:.,+Z-]+\W((?!\b(DEBUG|INFO)\b).){0,60}\bWARN(ING)?\b
    | \S+:\d+:\s\w*Warning:\s                                # warnings.warn
    """,
    re.VERBOSE,
)


def level_of(stream: str, text: str) -> int:
    """The ``logging`` level for one line of ``stream``, which is ``stdout`` or ``stderr``."""
    if stream == "stdout":
        return logging.INFO
    if _ERROR.match(text):
        return logging.ERROR
    if _WARNING.match(text):
        return logging.WARNING
    return logging.INFO
