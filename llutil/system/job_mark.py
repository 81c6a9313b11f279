"""The environment variable that every process of a job has; its value is the job's mark.

The kernel shows the environment of a process as it was when its program was started. For a fork it
shows the parent's. So a fork is found by the mark only if one of its ancestors was started with the
mark. This module imports nothing.
"""

from __future__ import annotations

__all__ = ["GUARDIAN_VARIABLE", "MARK_VARIABLE"]

MARK_VARIABLE = "LLUTIL_JOB"
"""What every process of a job has, so that its guardian finds them: the job's own mark."""

GUARDIAN_VARIABLE = "LLUTIL_GUARDIAN"
"""What the job's guardian has in its place. It outlives the other processes of the job."""
