"""Finds the jobs of this user on this host, by the sockets of their agents."""

from __future__ import annotations

from typing import Any

import msgspec

from llutil.agent_socket.client import Heard, ask
from llutil.agent_socket.folder import socket_names
from llutil.agent_socket.messages import JobStatus, Order, Request
from llutil.command_line.errors import CommandError

__all__ = ["all_jobs", "as_json", "ask_agent", "nodes_of", "run_ids", "statuses_of"]

SECONDS = 3.0
"""How long agents have to answer. One that waits inside torch's rendezvous may not."""


def all_jobs() -> list[Heard]:
    """All nodes of all jobs, in order of run id and node."""
    heard = ask(socket_names(), Request(do=Order.STATUS), SECONDS)
    return sorted(heard, key=_place)


def run_ids() -> list[str]:
    """The run ids that there are."""
    return sorted({_run_id(one) for one in all_jobs()})


def nodes_of(run_id: str) -> list[Heard]:
    """The nodes of the job ``run_id`` here.

    :raises CommandError: there are none; the text names the jobs that there are.
    """
    names = [name for name in socket_names() if name.may_be_of(run_id)]
    heard = ask(names, Request(do=Order.STATUS), SECONDS)
    found = [one for one in heard if one.status is None or one.status.run_id == run_id]
    if not found:
        raise CommandError(_unknown(run_id))
    return sorted(found, key=_place)


def ask_agent(pid: int, run_id: str, request: Request) -> JobStatus | None:
    """What the agent ``pid`` of that run answers; None if it has ended.

    :raises CommandError: it does not answer.
    """
    names = [name for name in socket_names() if name.pid == pid and name.may_be_of(run_id)]
    heard = ask(names, request, SECONDS)
    return statuses_of(heard)[0] if heard else None


def statuses_of(heard: list[Heard]) -> list[JobStatus]:
    """The statuses of those that have answered.

    :raises CommandError: none has.
    """
    found = [one.status for one in heard if one.status is not None]
    if not found:
        texts = "; ".join(f"agent {one.name.pid}: {one.problem}" for one in heard)
        raise CommandError(f"no agent of the run has answered: {texts}")
    return found


def as_json(value: Any) -> str:
    """``value`` as text for programs."""
    return msgspec.json.format(msgspec.json.encode(value), indent=2).decode() + "\n"


def _run_id(one: Heard) -> str:
    return one.status.run_id if one.status else one.name.run_id


def _place(one: Heard) -> tuple[str, int, int]:
    node = one.status.node if one.status else None
    return _run_id(one), -1 if node is None else node, one.name.pid


def _unknown(run_id: str) -> str:
    known = run_ids()
    text = f"no run {run_id!r} of this user on this host"
    if not known:
        return f"{text}; there is none at all. Runs of other users and hosts are not seen"
    return f"{text}; there are: {', '.join(known)}"
