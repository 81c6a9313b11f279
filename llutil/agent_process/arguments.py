"""The arguments of ``python -m llutil``: the descriptors that the agent has from its task.

This module may import nothing but the standard library.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Inherited", "inherited"]


@dataclass(frozen=True, slots=True)
class Inherited:
    """Descriptors. ``results`` takes what ranks return, and ``secrets`` has those of the job; None:
    there is no such file.
    """

    socket: int
    stdout_reader: int
    stderr_reader: int
    results: int | None
    secrets: int | None


def inherited(argv: Sequence[str]) -> Inherited:
    """What ``argv`` says. No process that is started from here has these descriptors.

    :raises SystemExit: it says something else, or a descriptor is not open.
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
        "--results", type=int, help="file that takes what ranks return; else the socket does"
    )
    parser.add_argument("--secrets", type=int, help="file that has the secrets of the job, if any")
    options = vars(parser.parse_args(argv))
    for fd in options.values():
        if fd is None:
            continue
        try:
            os.set_inheritable(fd, False)
        except OSError:
            parser.error(f"{fd} is not an open descriptor; the operator passes open ones")
    return Inherited(**options)
