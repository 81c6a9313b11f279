"""The command ``llutil``: reads the command line, and runs the command that it names.

Commands are imported when they run, so that those which ask an agent start in a moment.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import Any

import llutil
from llutil.command_line.errors import CommandError

__all__ = ["main", "parser"]

_SECONDS = 60.0
_BROKEN_PIPE, _INTERRUPTED = 141, 130
"""What a shell says of a program that ended by SIGPIPE, or by Ctrl-C."""

_ORDERS = {
    "pause": "hold all ranks of the job at the end of one step",
    "resume": "let ranks go on after a pause",
    "checkpoint": "have all ranks save a checkpoint after one step",
    "stop": "have all ranks save, if they have a place for that, and end after one step",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command that ``argv`` names, by default the process's own; returns its exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    built = parser()
    with suppress(ImportError):
        import argcomplete

        argcomplete.autocomplete(built)
    given = built.parse_args(words)
    try:
        code: int = given.function(given)
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


def parser() -> argparse.ArgumentParser:
    """The parser of all commands."""
    top = argparse.ArgumentParser(
        prog="llutil",
        description="Run elastic PyTorch jobs, and look after those that run on this host.",
        epilog="'llutil COMMAND --help' shows examples. docs/command-line.md has all of it.",
    )
    top.add_argument("--version", action="version", version=f"llutil {llutil.__version__}")
    commands = top.add_subparsers(dest="command", metavar="COMMAND", required=True)
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
        "show one job: its node, its ranks, its checkpoints",
        _status,
        ["llutil status train-digits", "llutil status train-digits --json"],
    )
    _add_run_id(status)
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


def _order(given: argparse.Namespace) -> int:
    from llutil.command_line.orders import order

    return order(given)


if __name__ == "__main__":
    sys.exit(main())
