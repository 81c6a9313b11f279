"""Has the task's log show an error by its text alone, without the frames that it came through.

Airflow logs the error of a task with all frames of its stack, below the error's text. Of the error
of a job they are always the same: Airflow's task runner and this package, while the user's code ran
in another process, and its frames are in the text. A processor of structlog (Airflow's logging)
takes them away, from the errors that it was told of and from no others. This module may import only
the standard library and structlog.
"""

from __future__ import annotations

import sys
from collections.abc import MutableMapping
from typing import Any

__all__ = ["log_by_text"]

_MARK = "_logged_by_text"


def log_by_text(error: BaseException) -> None:
    """From now on the log of this process shows ``error`` without frames.

    If the log is not configured as Airflow does it, it shows them as before.
    """
    import structlog

    setattr(error, _MARK, True)
    # The loggers that exist have this very list.
    processors = structlog.get_config()["processors"]
    if isinstance(processors, list) and _without_frames not in processors:
        processors.insert(0, _without_frames)


def _without_frames(
    logger: Any, method: str, event: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    """``event`` without the frames of its error, if the error is one that was told of."""
    del logger, method
    given = event.get("exc_info")
    if isinstance(given, tuple):
        error = given[1]
    else:
        error = given if isinstance(given, BaseException) else sys.exc_info()[1] if given else None
    if getattr(error, _MARK, False):
        event["exc_info"] = (type(error), error, None)
    return event
