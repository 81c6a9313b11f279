"""Makes an agent of a fork of the server: what ``python -c`` with the agent's code would have been.

It runs in the fork, and never returns. The server has checked that all which is not set here is as
a fresh process would have it (``same_start``). This module may import only the standard library,
this folder and ``llutil.agent.worker_side.after_fork``.
"""

from __future__ import annotations

import fcntl
import os
import random
import signal
import sys
import traceback
import types
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import NoReturn

from llutil.agent.worker_side.after_fork import reseed_generators
from llutil.agent_server.order import Order
from llutil.agent_server.shown_memory import show

__all__ = ["become_agent"]


def become_agent(
    order: Order,
    cwd: int,
    fds: Sequence[int],
    mask: set[int],
    made: int,
    run: Callable[[], int],
) -> NoReturn:
    """Be the agent that was ordered, in the folder ``cwd``, with ``fds`` at their places, the
    signal mask ``mask``, and no other descriptor; then close ``made``, and call ``run``.
    """
    status = 1
    try:
        os.setsid()
        # Before the descriptor is closed that the server's handler writes to.
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.fchdir(cwd)
        made = _take_descriptors(fds, order.places, made)
        command = [sys.executable, "-u", "-m", "llutil", *order.arguments]
        show(order.env, command)
        sys.orig_argv[:] = command
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        _forget_server(order)
        os.close(made)
        status = run()
    except SystemExit as end:
        if isinstance(end.code, str):
            sys.stderr.write(f"{end.code}\n")
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:  # noqa: BLE001 - the edge of the process
        traceback.print_exc()
    finally:
        # As ``llutil.__main__`` ends an agent. Its streams have no buffer.
        os._exit(status)


def _take_descriptors(fds: Sequence[int], places: Sequence[int], made: int) -> int:
    """Have ``fds`` at ``places``, the null device as standard input, ``made``, whose new number is
    returned, and nothing else open.
    """
    null = os.open(os.devnull, os.O_RDONLY)
    wanted = (0, *places)
    # Out of the way of each other first.
    first = max(wanted) + 1
    made, *moved = (fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, first) for fd in (made, null, *fds))
    for fd, place in zip(moved, wanted, strict=True):
        os.dup2(fd, place)
    for name in os.listdir("/proc/self/fd"):  # noqa: PTH208 - numbers
        if int(name) not in (*wanted, made):
            with suppress(OSError):  # listdir's own descriptor is closed already
                os.close(int(name))
    return made


def _forget_server(order: Order) -> None:
    """Have nothing of what Python gives each new process, or libraries draw at random once."""
    # As ``python -c`` has the working directory, but last: its files hide nothing of ours.
    sys.path += [*order.sys_path, *([] if sys.flags.safe_path else [""])]
    sys.argv[:] = ["-c", *order.arguments]
    sys.modules["__main__"] = types.ModuleType("__main__")
    random.seed()
    reseed_generators()
    if process := sys.modules.get("multiprocessing.process"):
        process.current_process().authkey = os.urandom(32)
