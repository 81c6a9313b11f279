"""Writes lines of a rank that hold wanted texts into a file that all ranks of the node share.

torch calls this duplicating with filters (``duplicate_stdout_filters``, torch 2.13). The file has
torch's name and form: each line behind the rank's prefix. This module may import only the standard
library and ``log_files``.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable
from contextlib import ExitStack

from llutil.agent.output.log_files import Route, open_log, write_all

__all__ = ["FilteredLines"]

_log = logging.getLogger(__name__)


class FilteredLines:
    """Takes the lines of one stream, and writes those that ``route`` wants behind ``prefix``, until
    ``stack`` is closed.
    """

    def __init__(self, route: Route, prefix: str, stack: ExitStack) -> None:
        self._wanted = route.wanted
        self._prefix = prefix
        self._fd: int | None = None
        if route.filtered is not None:
            self._fd = open_log(route.filtered)
            stack.callback(os.close, self._fd)

    def take(self, lines: Iterable[str]) -> None:
        """Write those of ``lines`` that hold a wanted text. If the disk is full, the file ends and
        the job goes on.
        """
        if self._fd is None:
            return
        try:
            for line in lines:
                if any(text in line for text in self._wanted):
                    # One write a line, and the file is open for appending: lines of ranks do not
                    # mix.
                    text = f"{self._prefix}{line}\n"
                    write_all(self._fd, text.encode(errors="backslashreplace"))
        except OSError as error:
            self._fd = None  # ``stack`` closes it
            _log.error("the file of filtered lines ends here: %s", error.strerror)
