"""``llutil ps``: the jobs of this user on this host."""

from __future__ import annotations

import argparse
from typing import Any

import msgspec

from llutil.agent_server.place import servers
from llutil.agent_socket.client import Heard
from llutil.command_line import words
from llutil.command_line.jobs import all_jobs, as_json
from llutil.command_line.screen import Cell, Screen

__all__ = ["ps"]

_HEADER = ("RUN ID", "NODE", "STATE", "RANKS", "STEP", "RATE", "RESTARTS", "AGENT")


def ps(given: argparse.Namespace) -> int:
    """Show them; 0."""
    heard, screen = all_jobs(), Screen()
    if given.json:
        screen.raw(as_json([_plain(one) for one in heard]))
        return 0
    screen.table(_HEADER, [_row(one) for one in heard])
    for one in heard:
        if one.problem:
            screen.line(f"agent {one.name.pid} of {one.name.run_id}: {one.problem}", "red")
    for pid in servers().values():
        screen.line(f"agent server {pid} keeps agents ready for Airflow's tasks")
    if not heard:
        screen.line("no job of this user runs on this host")
    return 0


def _plain(one: Heard) -> Any:
    if one.status is not None:
        return msgspec.to_builtins(one.status)
    return {"run_id": one.name.run_id, "pid": one.name.pid, "problem": one.problem}


def _row(one: Heard) -> list[str | Cell]:
    status = one.status
    if status is None:
        silent = Cell("silent", "red")
        return [one.name.run_id, "-", silent, "-", "-", "-", "-", str(one.name.pid)]
    node = "-" if status.node is None else f"{status.node} of {status.nodes}"
    ranks = f"{len(status.ranks)} of {status.world_size}" if status.ranks else "-"
    return [
        status.run_id,
        node,
        words.state(status),
        ranks,
        words.steps(status),
        words.rate(status),
        f"{status.restarts} of {status.max_restarts}",
        str(status.pid),
    ]
