"""Reads the arguments of ``python -m llutil``: the descriptors that the agent has from its task.

This module may import nothing but the standard library.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["InheritedDescriptors", "read_arguments"]


@dataclass(frozen=True, slots=True)
class InheritedDescriptors:
    """Descriptors that the agent has from its task. ``results`` is a file for what ranks return,
    and ``secrets`` a file with the job's secrets; None if there is no such file.
    """

    socket: int
    stdout_reader: int
    stderr_reader: int
    results: int | None
    secrets: int | None


def read_arguments(argv: Sequence[str]) -> InheritedDescriptors:
    """The descriptors that ``argv`` names. Processes that this one starts do not inherit them.

    :raises SystemExit: an argument is wrong, or a descriptor is not open.
    """
    parser = argparse.ArgumentParser(
        prog="python -m llutil",
        description="The agent process of airflow-provider-elastic-launch. The operator starts it; "
        "to launch a job from a program, use llutil.launcher.launch_agent.",
    )
    parser.add_argument(
        "--socket", type=int, required=True, help="descriptor of the socket to the task"
    )
    parser.add_argument(
        "--stdout-reader", type=int, required=True, help="read end of standard output"
    )
    parser.add_argument(
        "--stderr-reader", type=int, required=True, help="read end of standard error"
    )
    parser.add_argument(
        "--results",
        type=int,
        help="descriptor of a file for what ranks return; without it, results go over the socket",
    )
    parser.add_argument("--secrets", type=int, help="descriptor of a file with the job's secrets")
    options = vars(parser.parse_args(argv))
    for fd in options.values():
        if fd is None:
            continue
        try:
            os.set_inheritable(fd, False)
        except OSError:
            parser.error(f"{fd} is not an open descriptor; the operator passes open ones")
    return InheritedDescriptors(**options)
