"""The command ``llutil``: reads the command line, and runs the command that it names.

Commands are imported when they run, so that those which ask an agent start in a moment.
"""

from __future__ import annotations

import argparse
import io
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import Any, NoReturn

import llutil
from llutil.command_line.errors import CommandError
from llutil.command_line.rendezvous import add_options
from llutil.system.standard_fds import open_standard_fds

__all__ = ["console", "main", "parser"]

_SECONDS = 60.0
_JOB = "run"
_BROKEN_PIPE, _INTERRUPTED = 141, 130
"""What a shell says of a program that ended by SIGPIPE, or by Ctrl-C."""

_RUN = "run a script, a module or a program on every rank of a job, as torchrun does"
_PLACES = {
    "checkpoint-path": "where checkpoints are to lie",
    "log-dir": "where log files are to lie",
    "local-addr": "the address at which other nodes are to find this one",
}
_ORDERS = {
    "pause": "hold all ranks of the job at the end of one step",
    "resume": "let ranks go on after a pause",
    "checkpoint": "have all ranks save a checkpoint after one step",
    "stop": "have all ranks save, if they have a place for that, and end after one step",
}


def console() -> NoReturn:
    """Be the program ``llutil``."""
    open_standard_fds()
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # it was closed, as by ">&-": nobody wants what is said
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_WRONLY), "w", encoding="utf-8"))
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":
        # A terminal may lack a letter of a job's; that is no reason to show nothing.
        sys.stdout.reconfigure(errors="backslashreplace")
    code = main()
    with suppress(OSError, ValueError):
        sys.stdout.flush()
        sys.stderr.flush()
    # All is done. To take torch apart would cost half a second, and where one of its calls was left
    # to itself by a stop, it would wait for that call.
    os._exit(code)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command that ``argv`` names, by default the process's own; returns its exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    built = parser(runs=_names_run(words))
    with suppress(ImportError):
        import argcomplete

        argcomplete.autocomplete(built)
    given = built.parse_args(words)
    try:
        code: int = given.function(given)
        if given.command != _JOB:  # whose code is the job's, whether its lines can be read or not
            sys.stdout.flush()
    except CommandError as error:
        sys.stderr.write(f"llutil {given.command}: {error}\n")
        return error.code
    except BrokenPipeError:  # as with "llutil ps | head"
        # Python flushes standard output when it ends, which would fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _BROKEN_PIPE
    except KeyboardInterrupt:
        return _INTERRUPTED
    return code


def parser(*, runs: bool = True) -> argparse.ArgumentParser:
    """The parser of all commands. Without ``runs`` it lacks the options of ``run``, which need
    torch.
    """
    top = argparse.ArgumentParser(
        prog="llutil",
        description="Run elastic PyTorch jobs, and look after those that run on this host.",
        epilog="'llutil COMMAND --help' shows examples. docs/command-line.md has all of it.",
    )
    top.add_argument("--version", action="version", version=f"llutil {llutil.__version__}")
    commands = top.add_subparsers(dest="command", metavar="COMMAND", required=True)
    if runs:
        from llutil.command_line.run import add_run

        add_run(commands, _JOB, _RUN)
    else:
        commands.add_parser(_JOB, help=_RUN)
    _add(
        commands,
        "ps",
        "show the jobs of this user on this host",
        _ps,
        ["llutil ps", "llutil ps --json | jq '.[].run_id'"],
    )
    status = _add(
        commands,
        "status",
        "show one job: its node, its ranks, its checkpoints; or all of its nodes",
        _status,
        [
            "llutil status train-digits",
            "llutil status train-digits --json",
            "llutil status train-digits --rdzv-endpoint etcd.example.com:2379",
        ],
    )
    _add_run_id(status)
    add_options(status, {})  # a variable must not make a question about this host another one
    one = _add(
        commands,
        "stacks",
        "show what the ranks of a job on this host do at this moment, call by call",
        _stacks,
        ["llutil stacks train-digits", "llutil stacks train-digits --json"],
    )
    _add_run_id(one)
    _add_doctor(commands)
    for name, text in _ORDERS.items():
        examples = [f"llutil {name} train-digits", f"llutil {name} train-digits --timeout 600"]
        if name == "stop":
            examples.append("llutil stop train-digits --why 'good enough'")
        one = _add(commands, name, text, _order, examples)
        _add_run_id(one)
        one.add_argument("--why", default="", help="a reason, which the logs of all nodes repeat")
        one.add_argument(
            "--timeout",
            type=float,
            default=_SECONDS,
            metavar="SECONDS",
            help="how long to wait until it has come about (default: %(default)g)",
        )
    return top


def _names_run(words: Sequence[str]) -> bool:
    """Whether ``words``, or the line that a shell wants completed, begin with "run"."""
    line = os.environ.get("COMP_LINE", "").split() if "_ARGCOMPLETE" in os.environ else []
    return [*line[1:], *words][:1] == [_JOB]


def _add_doctor(commands: Any) -> None:
    one = _add(
        commands,
        "doctor",
        "say what would ruin a run on this host, before there is one",
        _doctor,
        [
            "llutil doctor",
            "llutil doctor --nproc-per-node 8 --checkpoint-path s3://bucket/checkpoints",
            "llutil doctor --rdzv-endpoint etcd.example.com:2379 && llutil run ...",
        ],
    )
    one.add_argument(
        "--nproc-per-node",
        "--nproc_per_node",
        default=os.environ.get("PET_NPROC_PER_NODE", "auto"),
        metavar="N",
        help="ranks of this node, as for 'llutil run' (default: %(default)s)",
    )
    for name, text in _PLACES.items():
        option, variable = f"--{name}", f"PET_{name.upper().replace('-', '_')}"
        other = option.replace("-", "_").replace("__", "--")
        one.add_argument(option, other, default=os.environ.get(variable), help=text)
    add_options(one, os.environ)


def _add(
    commands: Any,
    name: str,
    text: str,
    function: Callable[[argparse.Namespace], int],
    examples: Iterable[str],
) -> argparse.ArgumentParser:
    one: argparse.ArgumentParser = commands.add_parser(
        name,
        help=text,
        description=f"{text[0].upper()}{text[1:]}.",
        epilog="examples:\n" + "\n".join(f"  {example}" for example in examples),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    one.add_argument("--json", action="store_true", help="write JSON, for programs")
    one.set_defaults(function=function)
    return one


def _add_run_id(one: argparse.ArgumentParser) -> None:
    argument: Any = one.add_argument("run_id", metavar="RUN_ID", help="as 'llutil ps' shows it")
    argument.completer = _run_ids  # argcomplete's


def _run_ids(**_: Any) -> list[str]:
    from llutil.command_line.jobs import run_ids

    return run_ids()


def _ps(given: argparse.Namespace) -> int:
    from llutil.command_line.ps import ps

    return ps(given)


def _status(given: argparse.Namespace) -> int:
    from llutil.command_line.status import status

    return status(given)


def _stacks(given: argparse.Namespace) -> int:
    from llutil.command_line.stacks import stacks

    return stacks(given)


def _doctor(given: argparse.Namespace) -> int:
    from llutil.command_line.doctor import doctor

    return doctor(given)


def _order(given: argparse.Namespace) -> int:
    from llutil.command_line.orders import order

    return order(given)
