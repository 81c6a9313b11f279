"""Chooses the level of a line that a program printed, for the task's log.

Airflow itself logs all that a task prints on stderr as errors. Training programs print progress
bars and logs there. So here a line is an error or a warning only if its own text says so, or if it
goes on with what an error or a warning has begun: a traceback, or indented lines. It may import
only the standard library.
"""

from __future__ import annotations

import logging
import re

__all__ = ["StreamLevels", "level_of"]

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


_RANK_PREFIX = re.compile(r"\[rank\d+\]:\s?")
"""What torch puts before each line of a rank's traceback."""

_TRACEBACK = re.compile(r"\s*(\+ Exception Group )?Traceback \(most recent call last\):")

_PROGRESS_BAR = re.compile(r"\s*\d{1,3}%")
"""A line of tqdm, whose percentage is indented."""

_CHAINED = (
    "During handling of the above exception, another exception occurred:",
    "The above exception was the direct cause of the following exception:",
)
"""What Python writes between two tracebacks, after an empty line."""


class StreamLevels:
    """The levels of the lines of one stream, in their order.

    :param stream: ``stdout`` or ``stderr``.
    """

    def __init__(self, stream: str) -> None:
        self._stream = stream
        self._begun = logging.INFO
        """The level of the line that the next one may go on with."""
        self._in_traceback = False

    def level(self, text: str) -> int:
        """The ``logging`` level of the next line."""
        level = level_of(self._stream, text)
        if self._stream == "stdout":
            return level
        line = _RANK_PREFIX.sub("", text[:_LOOKED_AT], count=1)
        if found := _TRACEBACK.match(line):
            # All lines of a group are indented. Any other traceback ends with one that is not.
            self._in_traceback, self._begun = found[1] is None, logging.ERROR
        elif line in _CHAINED or not line.strip() or self._goes_on(line):
            return max(level, self._begun)
        elif self._in_traceback:
            # The exception itself, whatever its class is called.
            self._in_traceback, self._begun = False, logging.ERROR
        else:
            self._begun = level
        return self._begun

    def _goes_on(self, line: str) -> bool:
        if self._in_traceback:
            return line[0].isspace()
        return line.startswith(("  ", "\t")) and not _PROGRESS_BAR.match(line)


def level_of(stream: str, text: str) -> int:
    """The ``logging`` level that one line of ``stream`` claims for itself."""
    if stream == "stdout":
        return logging.INFO
    start = text if len(text) <= _LOOKED_AT else f"{text[:_LOOKED_AT]} ..."
    if _ERROR.match(start):
        return logging.ERROR
    if _WARNING.match(start):
        return logging.WARNING
    return logging.INFO
