"""Makes a short text of a traceback that is equal for equal tracebacks.

This module may import nothing but the standard library and ``llutil.failure``.
"""

from __future__ import annotations

import hashlib
import re

from llutil.failure import Failure

__all__ = ["signature"]

_NUMBERS = re.compile(r"0x[0-9a-fA-F]+|\d+")


def signature(failure: Failure | None) -> str:
    """A short text that is equal for failures with the same traceback. It is empty if a rank had
    reported a step, or if the failure has no text.

    Frames are compared by file, line and function. In all other lines numbers are ignored, since
    addresses, times and process ids differ between tries.
    """
    if failure is None or failure.step > 0:
        return ""
    lines = failure.trace.split("\n") if failure.trace else failure.tail
    if not lines:
        return ""
    same = "\n".join(
        line.strip() if line.lstrip().startswith('File "') else _NUMBERS.sub("#", line.strip())
        for line in (failure.reason.partition("\n")[0] if not failure.trace else "", *lines)
    )
    return hashlib.sha256(same.encode(errors="replace")).hexdigest()[:16]
