"""Turns errors of the operating system that are not the user code's into one sentence.

This module may import the standard library and ``llutil.errors``.
"""

from __future__ import annotations

import errno
import resource
from collections.abc import Iterator
from contextlib import contextmanager

from llutil.errors import InfrastructureError

__all__ = ["os_errors_explained"]


@contextmanager
def os_errors_explained() -> Iterator[None]:
    """Explain what this process ran out of inside the block: descriptors, processes, disk.

    :raises InfrastructureError: in place of such an ``OSError``, or of the ``RuntimeError`` with
        which Python reports that no thread can be started. Other errors go through.
    """
    try:
        yield
    except (OSError, RuntimeError) as error:
        text = _explanation(error)
        if text is None:
            raise
        raise InfrastructureError(text) from error


def _explanation(error: OSError | RuntimeError) -> str | None:
    if isinstance(error, RuntimeError):
        return _no_process() if "can't start new thread" in str(error) else None
    match error.errno:
        case errno.EMFILE:
            limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
            return (
                f"this process may have {limit} open files (ulimit -n), and the job needs more: "
                "some tens, and ten for each rank"
            )
        case errno.ENFILE:
            return f"this machine has no more open files to give (fs.file-max): {error}"
        case errno.EAGAIN:
            return _no_process()
        case errno.ENOSPC | errno.EDQUOT:
            return f"there is no space left for {error.filename or 'a file of the job'}: {error}"
        case _:
            return None


def _no_process() -> str:
    limit, _ = resource.getrlimit(resource.RLIMIT_NPROC)
    known = "" if limit == resource.RLIM_INFINITY else f", which is {limit}"
    return (
        "no further process or thread can be started: see the user's limit (ulimit -u"
        f"{known}), and the limit of the container (pids.max)"
    )
