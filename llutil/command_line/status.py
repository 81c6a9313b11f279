"""``llutil status``: one job, as its agents on this host know it."""

from __future__ import annotations

import argparse

from llutil.agent_socket.messages import JobStatus, RankStatus
from llutil.command_line import words
from llutil.command_line.jobs import as_json, nodes_of, statuses_of
from llutil.command_line.screen import Screen
from llutil.progress.words import duration

__all__ = ["show_node", "status"]

_HEADER = ("RANK", "LOCAL", "PID", "STEP", "REPORTED", "DOES")


def status(given: argparse.Namespace) -> int:
    """Show it; 0."""
    heard, screen = nodes_of(given.run_id), Screen()
    found = statuses_of(heard)
    if given.json:
        screen.raw(as_json(found))
        return 0
    for number, one in enumerate(found):
        if number:
            screen.line("")
        show_node(screen, one)
    for silent in heard:
        if silent.problem:
            screen.line(f"agent {silent.name.pid}: {silent.problem}", "red")
    return 0


def show_node(screen: Screen, one: JobStatus) -> None:
    """Show one node of a job."""
    node = "no round runs" if one.node is None else f"{one.node} of {one.nodes}"
    label = f" ({one.label})" if one.label else ""
    saved = "" if one.saved is None else f"step {one.saved}, "
    metrics = ", ".join(f"{name} {value:.4g}" for name, value in one.metrics.items())
    screen.facts(
        [
            ("run", one.run_id),
            ("state", words.whole_state(one)),
            ("program", one.entrypoint),
            ("node", f"{node}{label}"),
            ("agent", f"process {one.pid} on {one.host}, for {duration(one.seconds)}"),
            ("restarts", f"{one.restarts} of {one.max_restarts}"),
            ("metrics", metrics),
            ("checkpoint", f"{saved}{one.checkpoint_folder}" if one.checkpoint_folder else ""),
            ("logs", one.log_folder),
            ("page", one.event_page),
        ]
    )
    screen.table(_HEADER, [_row(rank) for rank in one.ranks])


def _row(rank: RankStatus) -> list[str]:
    return [
        str(rank.rank),
        str(rank.local_rank),
        str(rank.pid),
        "-" if rank.step is None else str(rank.step),
        "-" if rank.silent is None else f"{rank.silent:.1f} s ago",
        rank.doing,
    ]
