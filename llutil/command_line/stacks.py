"""``llutil stacks``: what the ranks of a job on this host do at this moment, call by call.

The agent only says which processes they are; this process takes the stacks. So the agent goes on
meanwhile, and a rank that hangs hinders nobody.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import asdict
from typing import Any

from llutil.agent.hang.stack_text import written
from llutil.agent.hang.take_stacks import TakenStack, stacks_of
from llutil.agent_socket.messages import RankStatus
from llutil.command_line.errors import CommandError
from llutil.command_line.jobs import as_json, nodes_of, statuses_of
from llutil.command_line.screen import Screen

__all__ = ["stacks", "told"]

# How many calls of a thread are shown.
_CALLS = 200


def stacks(given: argparse.Namespace) -> int:
    """Show them; 0.

    :raises CommandError: no rank of the job runs here.
    """
    nodes = statuses_of(nodes_of(given.run_id))
    ranks = sorted((rank for one in nodes for rank in one.ranks), key=lambda rank: rank.rank)
    if not ranks:
        raise CommandError(f"no rank of run {given.run_id!r} runs here now: {nodes[0].state}")
    taken = stacks_of([rank.pid for rank in ranks], _wait)
    screen = Screen()
    if given.json:
        screen.raw(as_json([_plain(rank, taken[rank.pid]) for rank in ranks]))
        return 0
    screen.raw("\n".join(told(ranks, taken)) + "\n")
    return 0


def told(ranks: list[RankStatus], taken: dict[int, TakenStack]) -> list[str]:
    """Lines with the stacks; ranks that do the same share theirs."""
    groups: dict[object, list[RankStatus]] = {}
    for rank in ranks:
        one = taken[rank.pid]
        groups.setdefault(one.stack or one.unknown, []).append(rank)
    lines: list[str] = []
    for alike in groups.values():
        one = taken[alike[0].pid]
        names = ", ".join(f"rank {rank.rank} ({_step(rank)}, pid {rank.pid})" for rank in alike)
        if one.stack is None:
            lines.append(f"{names}: no stack: {one.unknown}")
        else:
            lines.append(f"{names}, most recent call first:")
            lines += written(one.stack.threads, _CALLS)
    return lines


def _step(rank: RankStatus) -> str:
    return "no step reported" if rank.step is None else f"step {rank.step}"


def _plain(rank: RankStatus, one: TakenStack) -> dict[str, Any]:
    threads = one.stack.threads if one.stack else ()
    return {
        "rank": rank.rank,
        "local_rank": rank.local_rank,
        "pid": rank.pid,
        "step": rank.step,
        "unknown": "" if one.stack else one.unknown,
        "threads": [[asdict(frame) for frame in thread] for thread in threads],
    }


def _wait(until: float) -> None:
    time.sleep(max(0.0, until - time.monotonic()))
