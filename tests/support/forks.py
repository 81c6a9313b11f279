"""Forks of the test run itself, which has torch and gRPC imported.

``in_a_fork`` is for a test of its own process's descriptors or children: it counts them, limits
them, or needs the same number twice. Threads and garbage of earlier tests open and close
descriptors at any moment, and a fork has neither.
"""

from __future__ import annotations

import functools
import os
import signal
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn, ParamSpec

from llutil.system.gc_pause import fork_without_gc as fork
from llutil.system.process_inheritance import die_with_parent

__all__ = ["fork", "in_a_fork"]

_P = ParamSpec("_P")


def in_a_fork(test: Callable[_P, None]) -> Callable[_P, None]:
    """A test whose body runs in a fork of the test run. Its fixtures are made and ended outside."""

    @functools.wraps(test)
    def forked(*args: _P.args, **kwargs: _P.kwargs) -> None:
        said = os.memfd_create("llutil-test", os.MFD_CLOEXEC)
        try:
            parent, pid = os.getpid(), fork()
            if pid == 0:
                _end_with(said, parent, functools.partial(test, *args, **kwargs))
            try:
                status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
            except BaseException:  # the test has taken too long, or is interrupted
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
                raise
            text = Path(f"/proc/self/fd/{said}").read_text()
        finally:
            os.close(said)
        assert status == 0, f"the fork ended with {status}: {text}"

    return forked


def _end_with(said: int, parent: int, test: Callable[[], None]) -> NoReturn:
    status = 1
    try:
        die_with_parent(parent)
        test()
        status = 0
    except BaseException:
        os.write(said, traceback.format_exc().encode())
    finally:
        os._exit(status)
