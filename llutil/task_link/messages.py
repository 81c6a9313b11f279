"""What the Airflow task and its agent process say to each other: values, and their JSON lines.

One private socket, one JSON object a line, both ways. The task sends one ``Spec`` and then commands
(``Stop``); the agent answers with events, the last of which is ``JobSucceeded`` or ``JobFailed``.
When the socket closes, the other side is gone: the agent then stops the job within the
``shutdown_timeout`` of its configuration.

A field that a newer side has added is ignored; whatever changes a message's meaning raises
``VERSION``. This module does no I/O: ``encode`` gives bytes, ``Decoder`` takes them. It may import
nothing but the standard library, msgspec, ``llutil.entrypoint``, ``llutil.errors``,
``llutil.failure`` and ``llutil.launcher.config``, since Airflow imports it to parse a DAG.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import fields
from typing import Any

import msgspec

from llutil.entrypoint import Entrypoint
from llutil.errors import ConfigError, Problem
from llutil.failure import JobFailure
from llutil.launcher.config import LaunchConfig

__all__ = [
    "VERSION",
    "Decoder",
    "Hello",
    "Hosting",
    "JobFailed",
    "JobSucceeded",
    "LogRecord",
    "Message",
    "OutputLine",
    "Progress",
    "Result",
    "ResultInFile",
    "RoundBegan",
    "Spec",
    "Stop",
    "encode",
    "from_json",
    "to_json",
    "unsendable",
]

VERSION = 3
"""Raised when a message changes so that an older side would misread it."""


class _Message(msgspec.Struct, frozen=True, tag_field="type", tag=str.lower):
    """What all messages have in common: their JSON names their type."""


class Spec(_Message, frozen=True, kw_only=True):
    """Task → agent, first: the job.

    ``config`` names its run. ``result_limit`` is the most bytes of JSON that one rank's value may
    take. ``afterlog`` names the file that takes what the agent
    prints once the task is gone. ``arrays``: values that go into a results file keep their arrays,
    see ``llutil.serialization.npz_archive``. ``legacy`` names the one that says who the agent is
    and how it ended, empty for none; ``launch`` is what the task calls this launch in there.
    """

    config: LaunchConfig
    entrypoint: Entrypoint
    result_limit: int
    afterlog: str
    legacy: str = ""
    launch: str = ""
    version: int = VERSION
    arrays: bool = False


class Stop(_Message, frozen=True):
    """Task → agent: end the job within its grace period. ``reason`` goes into the log."""

    reason: str


class Hello(_Message, frozen=True):
    """Agent → task, first: who answers. ``version`` is its ``VERSION``, ``python`` its interpreter.

    ``torch``, ``python_version`` and ``launcher`` are the versions of torch, Python and this
    package there, "" if not known.
    """

    pid: int
    python: str
    version: int = VERSION
    torch: str = ""
    python_version: str = ""
    launcher: str = ""


class Hosting(_Message, frozen=True):
    """Agent → task: this node hosts the store of its job; the others find it behind the door at
    ``endpoint``.
    """

    endpoint: str


class OutputLine(_Message, frozen=True):
    """Agent → task: one line that a rank printed, without its newline. ``stream`` is stdout or
    stderr.
    """

    rank: int
    stream: str
    text: str


class LogRecord(_Message, frozen=True):
    """Agent → task: one record of the agent's own log. ``level`` is a name of ``logging``'s."""

    level: str
    logger: str
    text: str


class RoundBegan(_Message, frozen=True):
    """Agent → task: workers have started. ``ranks`` are this node's; ``restart`` counts restarts so
    far.

    Without ``ranks``, and of a world of 0: this node's workers have ended, and it waits for what
    comes next.
    """

    restart: int
    world_size: int
    ranks: tuple[int, ...]


class Progress(_Message, frozen=True):
    """Agent → task, at most every half second: ``{rank: (step, total)}``; total 0 means unknown."""

    ranks: Mapping[int, tuple[int, int]] = {}


class Result(_Message, frozen=True):
    """Agent → task, one a rank, in rank order, before ``JobSucceeded``: what the rank returned, as
    plain JSON.
    """

    rank: int
    value: Any


class ResultInFile(_Message, frozen=True):
    """Agent → task, in place of a ``Result``: the value's JSON, or archive, is in the results file,
    ``size`` bytes at ``offset``.
    """

    rank: int
    offset: int
    size: int


class JobSucceeded(_Message, frozen=True):
    """Agent → task, last: every rank of this node ended well, and these are the ranks."""

    ranks: tuple[int, ...]


class JobFailed(_Message, frozen=True):
    """Agent → task, last: the job failed. ``error`` is the exception's class name, ``report`` its
    text.

    ``retryable`` is as in ``llutil.errors``: the same launch, tried again at once, has a chance.
    ``job_failure`` is what went wrong in the whole job.
    """

    error: str
    report: str
    retryable: bool
    job_failure: JobFailure


Message = (
    Spec
    | Stop
    | Hello
    | Hosting
    | OutputLine
    | LogRecord
    | RoundBegan
    | Progress
    | Result
    | ResultInFile
    | JobSucceeded
    | JobFailed
)


def encode(message: Message) -> bytes:
    """One line of JSON, newline included."""
    return json.dumps(to_json(message), separators=(",", ":")).encode() + b"\n"


def to_json(message: Message) -> dict[str, Any]:
    """The message as JSON has it."""
    # msgspec's own JSON takes no lone surrogate, and a rank prints what it likes.
    body: dict[str, Any] = msgspec.to_builtins(message, str_keys=True)
    return body


def unsendable(config: LaunchConfig) -> Iterator[Problem]:
    """What of ``config`` cannot be sent to an agent."""
    for one in fields(config):
        try:
            msgspec.to_builtins(getattr(config, one.name), str_keys=True)
        except TypeError as error:
            yield Problem(one.name, f"cannot be sent to the agent: {error}")


def from_json(body: object) -> Message:
    """The message that ``to_json`` gave. Fields that this version does not know are ignored.

    :raises ConfigError: it is none, or a spec of another version.
    """
    kind, version = (
        (body.get("type"), body.get("version")) if isinstance(body, dict) else (None, None)
    )
    if kind == "spec" and version != VERSION:
        raise ConfigError(
            f"the spec is of version {version}, this agent speaks {VERSION}: "
            "install the same airflow-provider-elastic-launch on both sides"
        )
    try:
        message: Message = msgspec.convert(body, type=Message, str_keys=True)
    except msgspec.ValidationError as error:
        raise ConfigError(
            # A spec may hold a password.
            f"not a message on the agent's socket: {kind or body!r:.200} ({error})"
        ) from error
    return message


class Decoder:
    """Turns received bytes into messages; holds the piece of a line whose rest has not come yet."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []

    def feed(self, data: bytes) -> Iterator[Message]:
        """Messages completed by ``data``, in order.

        :raises ConfigError: a line is not a message of ours.
        """
        if b"\n" not in data:
            self._pieces.append(data)
            return
        *lines, rest = b"".join((*self._pieces, data)).split(b"\n")
        self._pieces = [rest] if rest else []
        for line in lines:
            try:
                body = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise ConfigError(f"not a message on the agent's socket: {line[:200]!r}") from error
            yield from_json(body)
