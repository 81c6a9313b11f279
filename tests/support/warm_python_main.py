"""The process behind ``warm_python``: it has torch imported, and forks processes that run a command
line of Python's.

    python tests/support/warm_python_main.py ADDRESS

It listens there, a path, and ends with the thread that has started it. Each connection is one
order. It has one thread, and has imported no grpc, and of the tests
nothing but ``shown_environment``. First of all it starts
itself again with an environment that leaves room for its children's.
"""

from __future__ import annotations

import ctypes
import fcntl
import gc
import importlib
import json
import os
import runpy
import selectors
import signal
import socket
import sys
import tempfile
import traceback
import types
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

from shown_environment import ROOM, take_environment  # it lies beside this script

_ROOT = str(Path(__file__).parents[2])
_IMPORTS = (
    "torch._dynamo",  # DistributedDataParallel imports it
    "torch.distributed",
    "cloudpickle",
    "llutil.agent.ledger_agent",
    "llutil.agent.start_methods.forkserver_main",
    "llutil.agent_process.main",
    "llutil.launcher.run",
)
_OWN = {
    "OPENBLAS_NUM_THREADS": "1",  # so that no thread is started
    "OMP_NUM_THREADS": "1",
    **ROOM,
}
_FIRST_FREE = 500  # a number that no descriptor of a child will have
_MOST = 250  # descriptors that come with an order (SCM_MAX_FD of unix(7) is 253)


def _order(connection: socket.socket) -> tuple[int, int]:
    """Fork what is asked for; its pid, and a descriptor of it."""
    _, fds, _, _ = socket.recv_fds(connection, 1, _MOST)
    pid = os.fork()
    if pid == 0:
        _run(fds)
    for fd in fds:
        os.close(fd)
    pidfd = os.pidfd_open(pid)
    with suppress(OSError):  # who asked is gone
        socket.send_fds(connection, [str(pid).encode()], [pidfd])
    return pid, pidfd


def _asked(connection: socket.socket) -> bool:
    """Whether the exit status is asked for; else who could ask is gone."""
    try:
        return bool(connection.recv(1))
    except OSError:
        return False


def _serve(listener: socket.socket) -> NoReturn:
    """Fork what is asked for. A child is reaped when its exit status is asked for, or when it has
    ended and nobody can ask any more: as a parent would do it.
    """
    selector = selectors.DefaultSelector()
    selector.register(listener, selectors.EVENT_READ)
    while True:
        for key, _ in selector.select():
            if key.fileobj is listener:
                connection, _ = listener.accept()
                selector.register(connection, selectors.EVENT_READ, _order(connection))
                continue
            pid, pidfd = key.data
            selector.unregister(key.fileobj)
            if isinstance(key.fileobj, socket.socket):
                with key.fileobj as connection:
                    if not _asked(connection):
                        selector.register(pidfd, selectors.EVENT_READ, key.data)
                        continue
                    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
                    with suppress(OSError):
                        connection.send(str(status).encode())
            else:
                os.waitpid(pid, 0)
            os.close(pidfd)


def _run(fds: list[int]) -> NoReturn:
    """Be the process that was asked for."""
    status = 1
    try:
        with os.fdopen(fds[0]) as file:
            order = json.load(file)
        _take_descriptors(fds[1:], order["places"])
        if order["session"]:
            os.setsid()
        signal.signal(signal.SIGINT, signal.default_int_handler)
        os.chdir(order["cwd"])
        take_environment(order["env"])
        tempfile.tempdir = None  # TMPDIR may be another
        sys.path[:0] = order["path"]
        _run_command(order["argv"])
        status = 0
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:  # the edge of the process
        traceback.print_exc()
    finally:
        os._exit(status)


def _take_descriptors(fds: list[int], places: list[int]) -> None:
    """Have these descriptors at their places, and no others."""
    moved = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, _FIRST_FREE) for fd in fds]
    for fd, place in zip(moved, places, strict=True):
        os.dup2(fd, place)
    for name in os.listdir("/proc/self/fd"):  # noqa: PTH208 - numbers
        if int(name) not in places:
            with suppress(OSError):  # listdir's own descriptor is closed already
                os.close(int(name))


def _run_command(argv: list[str]) -> None:
    """What Python does with ``python -u -m MODULE ...`` and with ``python -u -c CODE ...``."""
    _, _, option, what, *arguments = sys.orig_argv = argv
    sys.argv[:] = [option, *arguments]
    if option == "-m":
        sys.path.insert(0, str(Path.cwd()))
        runpy.run_module(what, run_name="__main__", alter_sys=True)
    else:
        sys.path.insert(0, "")
        main = sys.modules["__main__"] = types.ModuleType("__main__")
        exec(what, main.__dict__)


def _main(address: str) -> NoReturn:
    parent = os.getppid()
    ctypes.CDLL(None).prctl(1, int(signal.SIGKILL), 0, 0, 0)  # PR_SET_PDEATHSIG
    assert os.getppid() == parent
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listener.bind(address)
    listener.listen(128)
    sys.path[0] = _ROOT  # and not this script's own folder
    for name in _IMPORTS:
        importlib.import_module(name)
    own = [_ROOT, *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    sys.path[:] = [entry for entry in sys.path if entry not in own]
    assert "grpc" not in sys.modules
    assert len(list(Path("/proc/self/task").iterdir())) == 1
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for whoever has started us
    gc.collect()
    gc.freeze()  # or each child's first collection would copy all that they share
    _serve(listener)


if __name__ == "__main__":
    if not os.environ.keys() >= _OWN.keys():
        os.execve(sys.executable, sys.orig_argv, {**os.environ, **_OWN})
    _main(*sys.argv[1:])
