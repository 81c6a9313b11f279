"""What people ask of an agent, and what it answers: one line of JSON each, with a version.

This module may import only the standard library and msgspec.
"""

from __future__ import annotations

import math
from enum import StrEnum
from typing import Any

import msgspec

__all__ = [
    "LONGEST_REQUEST",
    "Answer",
    "JobStatus",
    "Order",
    "RankStatus",
    "Request",
    "State",
    "decode_answer",
    "decode_request",
    "encode",
]

LONGEST_REQUEST = 4096
"""Bytes of a request, with its newline."""
_VERSION = 1


class Order(StrEnum):
    """What may be asked for."""

    STATUS = "status"
    """What the node does, and each of its ranks."""
    PAUSE = "pause"
    """All ranks are held at the end of one step."""
    RESUME = "resume"
    """They go on."""
    CHECKPOINT = "checkpoint"
    """All ranks save at the end of one step."""
    STOP = "stop"
    """All ranks save and stop at the end of one step. The job is a success."""


class State(StrEnum):
    """What the ranks of a node do, in a word."""

    WAITS = "waits"
    """No ranks run: the node waits for others, or for the next round."""
    RUNS = "runs"
    """Its ranks run."""
    PAUSES = "pauses"
    """A pause was asked for, and not every rank is held yet."""
    PAUSED = "paused"
    """Every rank is held at the end of a step."""
    SAVES = "saves"
    """A rank saves a checkpoint."""
    STOPS = "stops"
    """A stop of the job was asked for."""
    ENDS = "ends"
    """A signal asked this node to end."""
    DEBUGGED = "debugged"
    """A rank stands at a breakpoint."""


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """One request. ``why`` says the reason of an order, for logs."""

    do: Order
    why: str = ""
    version: int = _VERSION


class RankStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One rank. ``step`` is None, and ``silent`` too, while it has reported none; ``total`` 0 is an
    unknown one. ``doing`` is "steps", "checkpoint", "held" or "debugged". ``silent`` is how many
    seconds ago it last reported.
    """

    rank: int
    local_rank: int
    pid: int
    step: int | None
    total: int
    doing: str
    silent: float | None


class JobStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One node of a job, as its agent knows it.

    ``pid`` and ``host`` are the agent's, ``label`` is the node's name for people, and ``node`` its
    place among the ``nodes`` of the round; None if no round runs. ``ranks`` are those of this node;
    ``step`` and ``total`` are of the slowest of them, ``rate`` is in its steps a second, and
    ``seconds_left`` what is left at that rate; None if it is not known. ``metrics`` are rank
    0's, if it is here. ``detail`` is the last that was heard of a pause, a stop and the like.

    ``counts_steps``: a rank here has called ``worker.step`` in this round, without which nothing
    can be asked of ranks. ``stops_after`` is the step after which all ranks stop, since somebody
    asked for that, once it is agreed on. ``saved`` is the step of the last committed checkpoint of
    this round, and ``has_saved`` whether the checkpoint that was asked for last is committed.
    ``refused`` has, by order, why nothing came of it. ``seconds`` is how long the agent has run.

    ``round`` is the number of the last round here, and ``members`` are the names of its nodes in
    the order of ranks, if they are known. ``resumed_from`` is the step of the checkpoint that a
    rank of the round has gone on from.
    """

    run_id: str
    pid: int
    host: str
    entrypoint: str
    state: State
    nodes: int
    world_size: int
    restarts: int
    max_restarts: int
    seconds: float
    label: str = ""
    node: int | None = None
    ranks: tuple[RankStatus, ...] = ()
    step: int | None = None
    total: int = 0
    rate: float | None = None
    seconds_left: float | None = None
    metrics: dict[str, float] = {}
    detail: str = ""
    counts_steps: bool = False
    stops_after: int | None = None
    saved: int | None = None
    has_saved: bool = False
    refused: dict[str, str] = {}
    checkpoint_folder: str = ""
    log_folder: str = ""
    event_page: str = ""
    round: int | None = None
    members: tuple[str, ...] = ()
    resumed_from: int | None = None


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to any request: the node's status, after the order was taken; or an error."""

    status: JobStatus | None = None
    error: str = ""
    version: int = _VERSION


def encode(message: Request | Answer) -> bytes:
    """``message`` as a line. What is no UTF-8 in it, such as bytes of a script's name, is shown as
    Python writes it. A metric that is no finite number, as the loss of a training that diverges, is
    null there: JSON has no such number.
    """
    try:
        return msgspec.json.encode(message) + b"\n"
    except UnicodeEncodeError:
        return msgspec.json.encode(_shown(msgspec.to_builtins(message))) + b"\n"


def _shown(value: Any) -> Any:
    """``value`` without surrogates, which Python has for such bytes and JSON has not."""
    match value:
        case str():
            return value.encode(errors="backslashreplace").decode()
        case dict():
            return {_shown(name): _shown(one) for name, one in value.items()}
        case list() | tuple():
            return [_shown(one) for one in value]
        case _:
            return value


def decode_request(line: bytes) -> Request:
    """The request in ``line``.

    :raises ValueError: it is none; the text says what would be one.
    """
    try:
        return msgspec.json.decode(line, type=Request)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        known = ", ".join(Order)
        wanted = '{"do": "...", "why": "..."}'
        raise ValueError(f"wanted one line {wanted} with one of {known}: {error}") from error


def decode_answer(line: bytes) -> Answer:
    """The answer in ``line``. A metric that is null there is not a number.

    :raises ValueError: it is none.
    """
    plain = msgspec.json.decode(line)
    status = plain.get("status") if isinstance(plain, dict) else None
    metrics = status.get("metrics") if isinstance(status, dict) else None
    if isinstance(metrics, dict):
        metrics |= dict.fromkeys([one for one in metrics if metrics[one] is None], math.nan)
    return msgspec.convert(plain, Answer)
