"""The first code of ours that runs in a worker: it runs what the order says, and reports the
outcome.

A worker is started in its own session, with its ranks in the environment and its standard streams
connected. This module makes the kernel kill the worker when its starter dies, runs the entrypoint,
and writes the outcome. A rank's process ends as a Python program does (see ``program_end``), so
what a function or a script has begun is finished. A child process that the user's code forked
reports nothing to the agent; it has only its exit status.

It imports no torch (the entrypoint may), and nothing of the agent but this folder, because every
start of every rank pays for its imports.
"""

from __future__ import annotations

import contextlib
import faulthandler
import logging
import os
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NoReturn

from llutil.agent.worker_side import main_module, returned_value
from llutil.agent.worker_side.after_fork import reseed_generators, set_torch_threads
from llutil.agent.worker_side.cpu_affinity import bind_to_cpus
from llutil.agent.worker_side.error_report import report_error
from llutil.agent.worker_side.program_end import end_program, forget_parent
from llutil.agent.worker_side.stack_signal import offer_stacks
from llutil.agent.worker_side.system_exit import exit_status
from llutil.agent.worker_side.work_order import WorkOrder, read_order
from llutil.entrypoint import Command, FunctionName, Module, PickledCall, Script
from llutil.errors import ConfigError
from llutil.serialization.local_rank_macro import arguments_of_rank
from llutil.system.process_inheritance import die_with_parent

__all__ = ["main", "run_forked"]


def main(order_fd: int, outcome_fd: int, parent: int, shared_fd: int | None = None) -> None:
    """Run as a freshly started interpreter; ``parent`` is the starter's pid. From ``shared_fd``
    comes what this rank shares with the launching process, if there is anything.

    Returns only when a script's interpreter should end by itself.
    """
    die_with_parent(parent)
    with _errors_reported(outcome_fd):
        bind_to_cpus()
        order = read_order(order_fd)
        os.set_inheritable(order_fd, False)
        os.set_inheritable(outcome_fd, False)
        _default_signals(order)
        _print_stacks_on_crash()
        offer_stacks()
        _receive_shared(shared_fd)
    if not isinstance(order.entrypoint, PickledCall | FunctionName):
        sys.exit(run_order(order, order_fd, outcome_fd, None))
    status = 1
    try:
        status = _run_all(order, order_fd, outcome_fd, None)
    finally:
        end_program(status)


def run_order(
    order: WorkOrder, order_fd: int, outcome_fd: int, direct: Callable[[], Any] | None
) -> int:
    """Run what ``order`` says, or ``direct`` in its place; write the outcome. Returns the exit
    status. The order's memory file, ``order_fd``, stays open only if children may need it.
    """
    if direct is None and isinstance(order.entrypoint, PickledCall | FunctionName):
        entrypoint = order.entrypoint
        sys.path[:] = order.sys_path
        sys.argv[:] = order.argv
        return _run_function(lambda: _load(entrypoint, order_fd), order, outcome_fd)
    os.close(order_fd)
    if direct is not None:
        return _run_function(lambda: direct, order, outcome_fd)
    if order.sys_path:
        sys.path[:] = order.sys_path
    match order.entrypoint:
        case PickledCall() | FunctionName():
            raise AssertionError("loaded above")
        case Script(path=path, args=args):
            argv = [path, *arguments_of_rank(args)]
            return _run_main(lambda: main_module.script(path), argv, outcome_fd)
        case Module(module=module, args=args):
            sys.path.insert(0, str(Path.cwd()))
            argv = [module, *arguments_of_rank(args)]
            return _run_main(lambda: main_module.module(module), argv, outcome_fd)
        case Command(program=program, args=args):
            return _exec([program, *arguments_of_rank(args)], outcome_fd)


def run_forked(
    order_fd: int,
    outcome_fd: int,
    direct: Callable[[], Any] | None,
    on_order: Callable[[WorkOrder], None],
    shared_fd: int | None = None,
) -> NoReturn:
    """Run in a process that was forked. It ends as a fresh interpreter would. ``on_order`` is
    called with the order before anything else; ``shared_fd`` is as in ``main``.
    """
    forget_parent()
    with _errors_reported(outcome_fd):
        order = read_order(order_fd)
        on_order(order)
        bind_to_cpus()
        for fd in (order_fd, outcome_fd):
            os.set_inheritable(fd, False)  # a descriptor that came over a socket is inheritable
        _default_signals(order)
        _print_stacks_on_crash()
        offer_stacks()
        set_torch_threads()
        reseed_generators()
        _receive_shared(shared_fd)
    before, rank, status = dict(os.environ), os.getpid(), 1
    try:
        status = _run_all(order, order_fd, outcome_fd, direct)
        if os.getpid() == rank:
            _warn_of_late_variables(before)
    finally:
        end_program(status)


def _run_all(
    order: WorkOrder, order_fd: int, outcome_fd: int, direct: Callable[[], Any] | None
) -> int:
    """``run_order``, whatever is raised beside the user's function: a signal handler of the user's
    may raise in our code, too. Such an error is printed, as it would be outside a launch.
    """
    try:
        return run_order(order, order_fd, outcome_fd, direct)
    except SystemExit as request:
        return exit_status(request)
    except BaseException as error:  # noqa: BLE001 - the edge of the process
        return report_error(error, None)


@contextlib.contextmanager
def _errors_reported(outcome_fd: int) -> Iterator[None]:
    """Report an error inside the block, which begins a rank, and end the process with it."""
    try:
        yield
    except Exception as error:  # noqa: BLE001 - the edge of the process
        end_program(_report_before_begin(error, outcome_fd))


def _warn_of_late_variables(before: Mapping[str, str]) -> None:
    """Say which variables this rank has set too late: torch and numpy had read them already."""
    from llutil.agent.worker_side.fork_environment import read_before

    names = read_before(before, os.environ)
    if names:
        with contextlib.suppress(Exception):  # a stream may be closed, or an object of the user's
            sys.stderr.write(
                f"WARNING: this rank has set {', '.join(names)}, but torch and numpy were imported "
                "before, by its fork server; give a job's variables to its launch, or use start "
                "method 'spawn'\n"
            )


def _receive_shared(shared_fd: int | None) -> None:
    if shared_fd is not None:
        from llutil.serialization import shared_objects

        try:
            shared_objects.receive(shared_fd)
        except OSError as error:
            raise ConfigError(
                f"this rank did not get what the launching process shares with it: {error}"
            ) from error


def _default_signals(order: WorkOrder) -> None:
    """Set the default signal handlers. An inherited ignored SIGINT (a background shell) or a
    blocked SIGTERM would make a stop impossible, and a forked rank has the agent's handlers.
    """
    for number in {signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, *order.stop_signals}:
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    # Last: a blocked signal is delivered now, and must not run a handler of the agent's.
    signal.pthread_sigmask(signal.SIG_SETMASK, [])


def _print_stacks_on_crash() -> None:
    """Make a crash in native code print the stack of each Python thread to the rank's standard
    error.
    """
    with contextlib.suppress(ValueError, OSError, RuntimeError):  # there is no standard error
        faulthandler.enable()


def _load(entrypoint: PickledCall | FunctionName, order_fd: int) -> Callable[[], Any]:
    """The call, in a process that has the modules of what came by value; and so have its
    children.
    """
    from llutil.agent.worker_side import spawned_children
    from llutil.serialization import functions, made_modules, shared_objects

    made_modules.begin()
    received = contextlib.ExitStack()
    received.enter_context(shared_objects.received_closed())
    try:
        call = functions.load_call(entrypoint)
    finally:
        # Not by ``with``: it sets the traceback of what the user's module raises, and so replaces
        # an error of a class that refuses that (CPython 3.11, ``contextmanager``).
        received.close()
    if made_modules.made():
        spawned_children.offer(order_fd, made_modules.made())
    else:
        os.close(order_fd)
    return call


def _run_function(load: Callable[[], Callable[[], Any]], order: WorkOrder, outcome_fd: int) -> int:
    try:
        _show_log_records(order.log_level)
        function = load()
    except BaseException as error:  # noqa: BLE001 - the edge of the process
        return _report_before_begin(error, outcome_fd)
    rank = os.getpid()
    try:
        value = function()
    except SystemExit as request:
        status = exit_status(request)
        if os.getpid() != rank:
            return status
        if status:
            return report_error(request, outcome_fd, exit_code=status)
        value = None  # as torch's ``record`` has it
    except BaseException as error:  # noqa: BLE001 - as above
        return report_error(error, outcome_fd if os.getpid() == rank else None)
    if os.getpid() != rank:
        return 0
    return returned_value.hand_in(value, order, outcome_fd)


def _report_before_begin(error: BaseException, outcome_fd: int) -> int:
    """Report what went wrong before the user's code began. Returns the exit status.

    A lack of memory and an interrupt are not the configuration's fault.
    """
    kinds = {kind.__name__ for kind in type(error).__mro__}
    wrong = kinds.isdisjoint({"KeyboardInterrupt", "MemoryError", "OutOfMemoryError"})
    return report_error(error, outcome_fd, fatal=wrong, bad_configuration=wrong)


def _show_log_records(level: int) -> None:
    """Show what the function logs, as Airflow does for a plain task; the task's log finds the level
    at the beginning of the line.
    """
    if level:
        logging.basicConfig(level=level, format="%(levelname)s:%(name)s:%(message)s")


def _run_main(load: Callable[[], main_module.Main], argv: list[str], outcome_fd: int) -> int:
    sys.argv[:] = argv
    try:
        code, module = load()
    except SystemExit as request:  # of a package that the module is in
        return exit_status(request)
    except BaseException as error:  # noqa: BLE001 - as above: a package's code runs
        return _report_before_begin(error, outcome_fd)
    if module.__file__:
        sys.argv[0] = module.__file__ if module.__spec__ else argv[0]
    sys.modules["__main__"] = module
    rank = os.getpid()
    try:
        exec(code, module.__dict__)  # noqa: S102 - this is what running a script means
    except SystemExit as request:
        return exit_status(request)
    except BaseException as error:  # noqa: BLE001 - the edge of the process
        return report_error(error, outcome_fd if os.getpid() == rank else None)
    return 0


def _exec(command: list[str], outcome_fd: int) -> int:
    for number in (signal.SIGPIPE, signal.SIGXFSZ):
        # Python ignores these signals; other programs expect to be ended by them.
        signal.signal(number, signal.SIG_DFL)
    try:
        os.execvp(command[0], command)  # noqa: S606 - running a command is what was asked for
    except OSError as error:
        problem = ConfigError(f"command {command[0]!r} could not be started: {error}")
        report_error(problem, outcome_fd, fatal=True, bad_configuration=True)
        return 127
