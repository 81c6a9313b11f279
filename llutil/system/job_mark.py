"""The name of the variable that every process of a job carries in its environment: the job's mark.

The kernel shows a process' environment as it was when the process was started afresh, and shows a
fork its parent's. So whoever is forked is found by the mark only if a process above it was started
with it. Imports nothing.
"""

from __future__ import annotations

__all__ = ["MARK"]

MARK = "LLUTIL_JOB"
