"""Whether two tracebacks are the same, told by a short text.

This module may import nothing but the standard library and ``llutil.failure``.
"""

from __future__ import annotations

import hashlib
import re

from llutil.failure import Failure

__all__ = ["signature"]

_NUMBERS = re.compile(r"0x[0-9a-fA-F]+|\d+")


def signature(failure: Failure | None) -> str:
    """A short text that is equal for failures with the same traceback, if no rank had made a step;
    else empty.

    Frames count with file, line and function. In all other lines numbers do not: addresses, times
    and process numbers differ from one try to the next. A failure of which there are no words has
    no signature.
    """
    if failure is None or failure.step > 0:
        return ""
    lines = failure.trace.splitlines() or failure.tail
    if not lines:
        return ""
    same = "\n".join(
        line.strip() if line.lstrip().startswith('File "') else _NUMBERS.sub("#", line.strip())
        for line in (failure.reason.partition("\n")[0] if not failure.trace else "", *lines)
    )
    return hashlib.sha256(same.encode(errors="replace")).hexdigest()[:16]
