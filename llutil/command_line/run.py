"""``llutil run``: what torchrun does, with our agent.

The parser is torchrun's own, with options of ours beside it. This module imports torch when a
parser is made: torchrun's options come from there.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llutil.command_line.errors import CommandError
from llutil.command_line.own_options import add_own_options
from llutil.command_line.run_config import entrypoint_of, launch_config_of
from llutil.errors import ConfigError, LaunchError
from llutil.job_name import name_by_chance
from llutil.launcher.run_id import deduce_run_id, is_named_by

if TYPE_CHECKING:
    from llutil.failure import JobFailure
    from llutil.launcher.config import LaunchConfig

__all__ = ["add_run", "exit_code", "run"]

_WRONG_USE, _FAILED, _SIGNALLED = 2, 1, 128

_EXAMPLES = """
examples:
  llutil run --nproc-per-node 4 train.py --epochs 3
  llutil run --nproc-per-node gpu --checkpoint-path s3://bucket/ck --checkpoint-every 10min train.py
  llutil run --nnodes 2:4 --rdzv-backend etcd --rdzv-endpoint etcd:2379 --rdzv-id digits train.py
  llutil run -m my_package.train --lr 0.1

Ctrl-C once: ranks save, if they have a place for that, and end at a step; twice: they end at once.
The exit code is that of the rank that failed first, 128 and the number of a signal that ended it or
stopped the job, and 2 for a wrong use.
"""


def add_run(commands: Any, name: str, text: str) -> argparse.ArgumentParser:
    """Add the command to ``commands``."""
    from torch.distributed.run import get_args_parser

    torchrun = get_args_parser()
    # Its -h is taken with all else, and then shows the new parser's help.
    parser: argparse.ArgumentParser = commands.add_parser(
        name,
        parents=[torchrun],
        add_help=False,
        help=text,
        description=f"{text[0].upper()}{text[1:]}.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_own_options(parser, os.environ)
    parser.set_defaults(function=run)
    return parser


def run(given: argparse.Namespace) -> int:
    """Run the job; the exit code says how it went.

    :raises CommandError: it could not be launched, or failed by no rank's failure.
    """
    try:
        config = launch_config_of(given)
        with _log_shown():
            return _launch(config, given)
    except ConfigError as error:
        raise CommandError(str(error), _WRONG_USE) from error
    except LaunchError as error:
        raise CommandError(str(error)) from error


def _launch(config: LaunchConfig, given: argparse.Namespace) -> int:
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import record

    from llutil.agent.failures.report import WorkersFailed
    from llutil.launcher.request import LaunchRequest
    from llutil.launcher.run import run as run_request

    named = bool(config.run_id) or is_named_by(os.environ)
    request = LaunchRequest(
        config=config,
        entrypoint=entrypoint_of(given, os.environ),
        args=(),
        events=None,
        default_run_id="" if config.run_id else _run_id(given.training_script, os.environ),
        unique_run=not named,
        sys_path=tuple(sys.path),
    )
    # Whoever has started torchrun so reads the first failure from this file.
    launch = record(run_request) if "TORCHELASTIC_ERROR_FILE" in os.environ else run_request
    try:
        launch(request)
    except WorkersFailed as failed:
        _say(f"{failed}\n")
        return exit_code(failed.job_failure)
    except SignalException as stop:
        _say(f"llutil run: stopped by {stop.sigval.name}\n")
        return _SIGNALLED + int(stop.sigval)
    return 0


def _say(text: str) -> None:
    with suppress(OSError):  # nobody can read it; the exit code says it too
        sys.stderr.write(text)


def exit_code(failure: JobFailure) -> int:
    """The exit code for a job that failed so: the first failed rank's own, as a shell has it."""
    status = failure.failure.exit_status if failure.failure is not None else _FAILED
    return (_SIGNALLED - status if status < 0 else status) or _FAILED


def _run_id(script: str, environ: Mapping[str, str]) -> str:
    """A run id for a job that was given none."""
    if is_named_by(environ):
        return deduce_run_id(environ)
    return name_by_chance(Path(script).name.removesuffix(".py"))


@contextmanager
def _log_shown() -> Iterator[None]:
    """Show what the launcher says in this context, on standard error; torch's variable ``LOGLEVEL``
    says from which level on.
    """
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("llutil: %(message)s"))
    log = logging.getLogger("llutil")
    level, propagates = log.level, log.propagate
    log.addHandler(handler)
    log.propagate = False
    with suppress(ValueError):  # a level that logging does not know
        log.setLevel(os.environ.get("LOGLEVEL", "INFO").upper())
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.propagate = propagates
        log.setLevel(level)
