"""grpc, imported so that this process may fork without harm.

grpc's own handlers around fork(2) are on by default (1.85.1). They refuse while any call is open, and ours
always has a watch open; between calls they can abort the process that forks ("Check failed: queue_.Empty()",
once in some hundred forks). ``GRPC_ENABLE_FORK_SUPPORT`` is read while grpc is imported: it is set for just
that long, and only if nobody has set it or imported grpc before.

A worker that was forked from a process with this module must not use grpc; one that is started in another way may.
"""

from __future__ import annotations

import os
import sys

__all__ = ["grpc"]

_SWITCH = "GRPC_ENABLE_FORK_SUPPORT"

if "grpc" in sys.modules or _SWITCH in os.environ:
    import grpc
else:
    os.environ[_SWITCH] = "0"
    try:
        import grpc
    finally:
        del os.environ[_SWITCH]
