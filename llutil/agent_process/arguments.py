"""Reads the arguments of ``python -m llutil``: what the agent has from its task.

This module may import nothing but the standard library.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["AgentArguments", "read_arguments"]


@dataclass(frozen=True, slots=True)
class AgentArguments:
    """What the agent has from its task: descriptors and folders. ``results`` is a file for what
    ranks return, and ``secrets`` a file with the job's secrets; None if there is no such file.

    ``paths`` are folders of the task's, which are on ``sys.path`` already. Ranks find the first
    ``before_site_packages`` of them before their site-packages.
    """

    socket: int
    stdout_reader: int
    stderr_reader: int
    results: int | None
    secrets: int | None
    before_site_packages: int
    paths: tuple[str, ...]


def read_arguments(argv: Sequence[str]) -> AgentArguments:
    """What ``argv`` says. Processes that this one starts do not inherit the descriptors.

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
    parser.add_argument(
        "--before-site-packages",
        type=int,
        default=0,
        help="so many folders of --path are searched before site-packages",
    )
    parser.add_argument(
        "--path", nargs="*", default=[], help="folders for modules of the task's, last of all"
    )
    given = parser.parse_args(argv)
    fds = [given.socket, given.stdout_reader, given.stderr_reader, given.results, given.secrets]
    for fd in fds:
        if fd is None:
            continue
        try:
            os.set_inheritable(fd, False)
        except OSError:
            parser.error(f"{fd} is not an open descriptor; the operator passes open ones")
    return AgentArguments(
        given.socket,
        given.stdout_reader,
        given.stderr_reader,
        given.results,
        given.secrets,
        given.before_site_packages,
        tuple(given.path),
    )
