"""The fork server: a process that imports torch once, starts no thread, and forks workers.

It is a rank server, see ``rank_server_loop``. It never touches CUDA: a CUDA context does not
survive a fork. It runs no user code before it has forked. It does not fork while it has a second
thread: a lock that the other thread holds, malloc's for example, would stay locked in the child for
ever.

There are two ways to run it. ``main`` runs it in a fresh interpreter. ``fork_server`` forks it from
a process that has called ``import_ahead`` itself and has no second thread yet; then one import
serves both.
"""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import socket
import sys
import traceback
import types
from functools import partial
from typing import NoReturn

from llutil.agent.start_methods.blas_threads import BlasPools, thread_count
from llutil.agent.start_methods.forked_worker import rehearse, run_forked_worker
from llutil.agent.start_methods.rank_server_loop import serve, set_up_process
from llutil.agent.start_methods.server_process import ForkedServerProcess
from llutil.system.gc_pause import fork_without_gc, gc_paused

__all__ = ["fork_server", "import_ahead", "main"]


def main(channel_fd: int, agent: int) -> None:
    """Serve until the socket ``channel_fd`` closes; ``agent`` is the agent's pid."""
    set_up_process()
    import_ahead()
    _serve(channel_fd, agent)


def import_ahead() -> None:
    """Import what every worker needs. If torch is missing or broken, the worker reports that, not
    the server.
    """
    with gc_paused(freeze=True):
        # Under ``-W error`` an import may raise a warning, too.
        with contextlib.suppress(ImportError, OSError, Warning):
            import torch
            import torch.distributed  # noqa: F401 - imported for the workers
        import cloudpickle  # noqa: F401 - as above

        import llutil.agent.worker_side.spawned_children
        import llutil.serialization.functions  # noqa: F401 - as above


def fork_server() -> tuple[ForkedServerProcess, socket.socket] | None:
    """A server forked from this process, and our end of its socket; None if this process has a
    second thread.

    Of this process's descriptors the server keeps only the standard streams. It keeps no signal
    handler.
    """
    agent = os.getpid()
    # A signal handler that runs between the count of threads and the fork might start one.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        if thread_count() > 1:
            return None
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            pid = fork_without_gc()
            if pid == 0:
                _run_forked_server(theirs.fileno(), agent)
        return ForkedServerProcess(pid), ours
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _run_forked_server(channel_fd: int, agent: int) -> NoReturn:
    try:
        os.setsid()
        set_up_process()
        signal.signal(signal.SIGIO, signal.SIG_DFL)
        found = {int(name) for name in os.listdir("/proc/self/fd")}  # noqa: PTH208 - numbers
        for fd in found - {0, 1, 2, channel_fd}:
            with contextlib.suppress(OSError):  # listdir's own descriptor is closed already
                os.close(fd)
        # As in ``python -c``. Else multiprocessing in a worker would import the agent's
        # ``__main__`` as the user's program.
        sys.modules["__main__"] = types.ModuleType("__main__")
        sys.argv[:] = ["-c"]
        _serve(channel_fd, agent)
    except BaseException:  # noqa: BLE001 - the edge of the process
        traceback.print_exc()
    finally:
        os._exit(70)


def _serve(channel_fd: int, agent: int) -> NoReturn:
    pools = BlasPools()
    # Garbage collection in a worker would write to objects that all workers share, and so copy
    # their memory.
    gc.freeze()
    serve(channel_fd, agent, partial(run_forked_worker, pools=pools), _refuse_for_threads, rehearse)


def _refuse_for_threads() -> dict[str, int] | None:
    threads = thread_count()
    return {"threads": threads} if threads > 1 else None
