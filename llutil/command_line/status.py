"""``llutil status``: one job, as its agents on this host know it; or, with ``--rdzv-endpoint``, all
of it, as its ledger does.
"""

from __future__ import annotations

import argparse

from llutil.agent_socket.messages import JobStatus, RankStatus
from llutil.command_line import words
from llutil.command_line.jobs import as_json, nodes_of, statuses_of
from llutil.command_line.rendezvous import rendezvous_of
from llutil.command_line.screen import Cell, Screen
from llutil.progress.words import duration

__all__ = ["show_node", "status"]

_NODES = ("NODE", "ADDRESS", "RANKS", "LIVES")
_STYLES = {"runs": "green", "waits": "yellow", "left": "red"}
_HEADER = ("RANK", "LOCAL", "PID", "STEP", "REPORTED", "DOES")


def status(given: argparse.Namespace) -> int:
    """Show it; 0."""
    if given.rdzv_endpoint:
        return _whole_job(given)
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


def _whole_job(given: argparse.Namespace) -> int:
    from llutil.command_line.job_ledger import read_ledger

    found, screen = read_ledger(given.run_id, rendezvous_of(given)), Screen()
    if given.json:
        screen.raw(as_json(found))
        return 0
    screen.facts(
        [
            ("run", found.run_id),
            ("state", Cell(found.state, _STYLES.get(found.state, ""))),
            ("outcome", found.outcome),
            ("round", f"{found.round} of generation {found.generation}" if found.round else ""),
            ("restarts", str(found.restarts)),
            ("ranks", str(found.world_size) if found.world_size else ""),
            ("asked", found.detail),
            ("last end", found.last_end),
        ]
    )
    screen.table(
        _NODES,
        [
            [
                one.label or one.name,
                one.address,
                _ranks(one.first_rank, one.nproc),
                "yes" if one.lives else Cell("no: its lease has ended", "red"),
            ]
            for one in found.nodes
        ],
    )
    return 0


def _ranks(first: int | None, count: int) -> str:
    if first is None:
        return "waits"
    return str(first) if count == 1 else f"{first} to {first + count - 1}"


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
