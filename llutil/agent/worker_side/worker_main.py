"""The first code of ours that runs in a worker: it becomes what the order says, and answers.

A worker is started in a session of its own, with its rank facts in the environment and its standard
streams where they belong. This module ties its life to its starter's, runs the entrypoint, and
writes the outcome. A rank's process ends as a Python program does, see ``program_end``: what a
function or a script has begun is finished. A child that the user's code forked speaks for itself
alone, by its exit status.

It imports no torch (the entrypoint may), and nothing of the agent but this folder: its cost is paid
by every start of every rank.
"""

from __future__ import annotations

import contextlib
import faulthandler
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from llutil.agent.worker_side import main_module
from llutil.agent.worker_side.error_report import flush, tell_error
from llutil.agent.worker_side.outcome_pipe import Returned, write_frame
from llutil.agent.worker_side.program_end import end_program, forget_parent
from llutil.agent.worker_side.work_order import WorkOrder, read_order
from llutil.entrypoint import Command, FunctionName, Module, PickledCall, Script
from llutil.errors import ConfigError, ResultError
from llutil.system.processes import die_with_parent

__all__ = ["main", "run_forked"]

_SHORTEST_RANDOM_SEED = 1 << 32


def main(order_fd: int, outcome_fd: int, parent: int) -> None:
    """Run as a freshly started interpreter; ``parent`` is the starter's pid.

    Returns only when a script's interpreter should end by itself.
    """
    die_with_parent(parent)
    order = read_order(order_fd)
    os.close(order_fd)
    os.set_inheritable(outcome_fd, False)
    _default_signals()
    _explain_crashes()
    status = become(order, outcome_fd, None)
    if isinstance(order.entrypoint, PickledCall | FunctionName):
        end_program(status)
    sys.exit(status)


def become(order: WorkOrder, outcome_fd: int, direct: Callable[[], Any] | None) -> int:
    """Run what ``order`` says, or ``direct`` in its place; write the outcome; give the exit
    status.
    """
    if direct is not None:
        return _run_function(lambda: direct, order, outcome_fd)
    match order.entrypoint:
        case PickledCall() | FunctionName() as entrypoint:
            sys.path[:] = order.sys_path

            from llutil.serialization import functions

            return _run_function(lambda: functions.load_call(entrypoint), order, outcome_fd)
        case Script(path=path, args=args):
            return _run_main(lambda: main_module.script(path), [path, *args], outcome_fd)
        case Module(module=module, args=args):
            sys.path.insert(0, str(Path.cwd()))
            return _run_main(lambda: main_module.module(module), [module, *args], outcome_fd)
        case Command(program=program, args=args):
            return _exec(program, args, outcome_fd)


def run_forked(order: WorkOrder, outcome_fd: int, direct: Callable[[], Any] | None) -> NoReturn:
    """Run in a process that was forked and not started afresh: end as an interpreter of its own
    would.
    """
    forget_parent()
    os.set_inheritable(outcome_fd, False)  # it may have come over a socket, which does not say so
    _default_signals()
    _explain_crashes()
    _set_threads()
    _draw_own_numbers()
    end_program(become(order, outcome_fd, direct))


def _set_threads() -> None:
    """Tell a torch that was imported before the fork what OMP_NUM_THREADS, read then, says now
    (torch 2.13).
    """
    from llutil.agent.worker_side.fork_environment import torch_threads

    threads = torch_threads(os.environ)
    if threads is not None and "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(threads)


def _draw_own_numbers() -> None:
    """Seed the generators that were seeded before the fork, so that ranks draw different numbers.

    A fresh interpreter has that by itself. ``random`` seeds itself again in a fork (CPython 3.11),
    numpy and torch do not. A seed that a caller set is kept. numpy forgets its own ``seed_seq``
    then (2.4). torch's own first seed has 53 random bits (2.13, ``getNonDeterministicRandom``), so
    a short one is a person's.
    """
    if "numpy.random" in sys.modules:
        random = sys.modules["numpy.random"]
        own = random.get_bit_generator()
        if type(own) is random.MT19937 and own.seed_seq is not None:
            random.set_state(random.MT19937().state)
    if "torch" in sys.modules:
        generator = sys.modules["torch"].default_generator
        if generator.initial_seed() >= _SHORTEST_RANDOM_SEED:
            generator.seed()


def _default_signals() -> None:
    """Undo what was inherited: an ignored SIGINT (a background shell) or a blocked SIGTERM would
    defeat a stop.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, signal.SIG_DFL)
    # Last: a signal that waited must not find a handler of the agent's.
    signal.pthread_sigmask(signal.SIG_SETMASK, [])


def _explain_crashes() -> None:
    """Have a crash in native code print where each Python thread was, to the rank's own standard
    error.
    """
    with contextlib.suppress(ValueError, OSError, RuntimeError):  # there is no standard error
        faulthandler.enable()


def _run_function(load: Callable[[], Callable[[], Any]], order: WorkOrder, outcome_fd: int) -> int:
    try:
        function = load()
    except BaseException as error:  # noqa: BLE001 - the edge of the process
        return tell_error(error, outcome_fd, fatal=True, bad_configuration=True)
    rank = os.getpid()
    try:
        value = function()
    except SystemExit as request:
        if os.getpid() != rank:
            return _exit_status(request)
        return tell_error(request, outcome_fd)
    except BaseException as error:  # noqa: BLE001 - as above
        return tell_error(error, outcome_fd if os.getpid() == rank else None)
    if os.getpid() != rank:
        return 0
    try:
        returned = _encode(value, order)
    except BaseException as error:  # noqa: BLE001 - as above: the value's code runs
        return tell_error(error, outcome_fd, fatal=True)
    flush()
    write_frame(outcome_fd, returned)
    return 0


def _encode(value: Any, order: WorkOrder) -> Returned:
    if order.result_limit is not None:
        from llutil.serialization import json_values, npz_archive

        encode = npz_archive.encode if order.arrays else json_values.encode
        rank = int(os.environ["RANK"])
        return Returned(encode(value, rank=rank, limit=order.result_limit), pickled=False)
    import cloudpickle

    try:
        return Returned(cloudpickle.dumps(value), pickled=True)
    except Exception as error:
        kind = f"{type(value).__module__}.{type(value).__qualname__}"
        raise ResultError(
            f"rank {os.environ['RANK']} returned a {kind} that cannot be pickled ({error}); "
            "return plain values, arrays or tensors"
        ) from error


def _run_main(load: Callable[[], main_module.Main], argv: list[str], outcome_fd: int) -> int:
    sys.argv[:] = argv
    try:
        code, module = load()
    except BaseException as error:  # noqa: BLE001 - as above: a package's code runs
        return tell_error(error, outcome_fd, fatal=True, bad_configuration=True)
    if module.__file__:
        sys.argv[0] = module.__file__ if module.__spec__ else argv[0]
    sys.modules["__main__"] = module
    rank = os.getpid()
    try:
        exec(code, module.__dict__)  # noqa: S102 - this is what running a script means
    except SystemExit as request:
        return _exit_status(request)
    except BaseException as error:  # noqa: BLE001 - the edge of the process
        return tell_error(error, outcome_fd if os.getpid() == rank else None)
    return 0


def _exec(program: str, args: tuple[str, ...], outcome_fd: int) -> int:
    for number in (signal.SIGPIPE, signal.SIGXFSZ):
        # Python ignores them; other programs expect to end by them.
        signal.signal(number, signal.SIG_DFL)
    try:
        os.execvp(program, [program, *args])  # noqa: S606 - running a command is what was asked for
    except OSError as error:
        problem = ConfigError(f"command {program!r} could not be started: {error}")
        tell_error(problem, outcome_fd, fatal=True, bad_configuration=True)
        return 127


def _exit_status(request: SystemExit) -> int:
    match request.code:
        case None:
            return 0
        case int(status):
            return status & 0xFF
        case text:
            with contextlib.suppress(Exception):  # as in flush
                sys.stderr.write(f"{text}\n")
            return 1
