"""``llutil pause``, ``resume``, ``checkpoint`` and ``stop``: orders, and what becomes of them.

An order is sent to one node, and acts on all nodes of the job. The command then waits until it has
come about on that node.
"""

from __future__ import annotations

import argparse
import time

from llutil.agent_socket.messages import JobStatus, Order, Request, State
from llutil.command_line.errors import CommandError
from llutil.command_line.jobs import as_json, ask_agent, nodes_of, statuses_of
from llutil.command_line.screen import Screen

__all__ = ["order", "outcome", "undone"]

# Seconds between two looks: at first, since a job that stops may end in a moment, and later.
_SHORT, _PERIOD, _AT_FIRST = 0.05, 0.5, 3.0
# Seconds to wait for ranks that have not called ``worker.step`` yet.
_FIRST_STEP = 5.0


def order(given: argparse.Namespace) -> int:
    """Give the order that the command names; 0 once it has come about.

    :raises CommandError: it has not: it was refused, or nothing came of it in time.
    """
    wanted, run_id = Order(given.command), given.run_id
    began = time.monotonic()
    agent = statuses_of(nodes_of(run_id))[0].pid
    found = ask_agent(agent, run_id, Request(do=wanted, why=given.why))
    while found is not None:
        if text := outcome(wanted, found):
            Screen().raw(as_json(found) if given.json else f"{text}\n")
            return 0
        limit = given.timeout if found.counts_steps else min(given.timeout, _FIRST_STEP)
        if time.monotonic() >= began + limit:
            raise CommandError(undone(wanted, found, limit))
        time.sleep(_SHORT if time.monotonic() < began + _AT_FIRST else _PERIOD)
        try:
            found = ask_agent(agent, run_id, Request(do=Order.STATUS))
        except CommandError:  # the order is taken; a busy agent may answer later
            if time.monotonic() >= began + limit:
                raise
    if wanted is not Order.STOP:
        raise CommandError(f"run {run_id!r} has ended")
    Screen().raw(as_json(None) if given.json else f"run {run_id!r} has ended\n")
    return 0


def outcome(wanted: Order, found: JobStatus) -> str:
    """What has become of the order, in words; empty while nothing has.

    :raises CommandError: it was refused.
    """
    if (why := found.refused.get(wanted)) is not None:
        raise CommandError(f"nothing comes of the {wanted}: {why}")
    match wanted:
        case Order.PAUSE if found.state is State.PAUSED:
            return found.detail or "paused"
        case Order.RESUME if found.state not in {State.PAUSED, State.PAUSES}:
            return "the ranks go on"
        case Order.CHECKPOINT if found.has_saved:
            step = "" if found.saved is None else f" of step {found.saved}"
            return f"the checkpoint{step} is committed, below {found.checkpoint_folder or '.'}"
        case Order.STOP if found.stops_after is not None:
            return f"all ranks stop after step {found.stops_after}"
        case Order.STOP if found.state is State.ENDS:
            return "the node ends: a signal has asked it to"
        case _:
            return ""


def undone(wanted: Order, found: JobStatus, seconds: float) -> str:
    """Why the order has not come about after so many seconds, as far as it is known."""
    if found.state is State.WAITS:
        return f"the {wanted} is asked for, but no round runs yet; it takes effect in the next one"
    if found.counts_steps:
        return f"the {wanted} is asked for, and has not come about within {seconds:g} s"
    return (
        f"the {wanted} is asked for, but no rank of this node has called worker.step, at which "
        f"ranks are told; to end a job that never calls it: kill {found.pid}, which sends its "
        "agent SIGTERM"
    )
