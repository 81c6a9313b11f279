"""The messages between an Airflow task and its agent process, and their form as JSON lines.

They go through one private socket, one JSON object a line, both ways. The task sends one ``Spec``
and then commands (``Stop``, ``Steer``). The agent sends events; the last one is ``JobSucceeded`` or
``JobFailed``. When the socket closes, the other side is gone: the agent then stops the job within
the ``shutdown_timeout`` of its configuration.

A field that a newer side has added is ignored. A change of a message's meaning raises ``VERSION``.
What happens to a job is in ``job_events``. This module does no I/O: ``encode`` gives bytes, which
``llutil.task_link.decoder`` takes. It may import only the standard library, msgspec,
``llutil.entrypoint``, ``llutil.errors``, ``llutil.failure``, ``llutil.launcher.config``,
``llutil.secret`` and ``job_events``, since Airflow imports it to parse a DAG.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import fields
from typing import Any

import msgspec

from llutil.entrypoint import Entrypoint
from llutil.errors import ConfigError, Problem
from llutil.failure import JobFailure
from llutil.launcher.config import LaunchConfig
from llutil.secret import Secret
from llutil.task_link.job_events import (
    JobEvent,
    Measured,
    NodeStatus,
    Progress,
    RoundBegan,
    RoundEnded,
    Saved,
    Steered,
    Stopped,
    Tagged,
    TimeSpent,
)

__all__ = [
    "VERSION",
    "Hello",
    "JobFailed",
    "JobSucceeded",
    "LedgerServed",
    "LogRecord",
    "Measured",
    "Message",
    "NodeStatus",
    "OutputLines",
    "Progress",
    "Result",
    "ResultInFile",
    "RoundBegan",
    "RoundEnded",
    "Saved",
    "Spec",
    "Steer",
    "Steered",
    "Stop",
    "Stopped",
    "TimeSpent",
    "encode",
    "from_json",
    "to_json",
    "unsendable",
]

VERSION = 6
"""It grows when a message changes so that an older side would misread it."""


class Spec(Tagged, frozen=True, kw_only=True):
    """Task → agent, first message: the job.

    ``config`` has its run id. Its secrets are not sent with it, see
    ``llutil.task_link.secrets_file``. ``result_limit`` is how many bytes of JSON one rank's value
    may take; 0 means that nobody wants the values. With ``arrays``, values in a results file keep
    their arrays, see ``llutil.serialization.npz_archive``. A value that cannot be handed on is kept
    in ``kept_folder``. ``log_level`` is from which level on the log records of functions are shown.

    ``orphan_log`` is the file that takes what the agent prints after the task is gone.
    ``agent_record`` is the file of its ``AgentRecord``, empty for none; ``launch`` is the name of
    this launch in that record.
    """

    config: LaunchConfig
    entrypoint: Entrypoint
    result_limit: int
    orphan_log: str
    agent_record: str = ""
    launch: str = ""
    version: int = VERSION
    arrays: bool = False
    kept_folder: str = ""
    log_level: int = 0


class Stop(Tagged, frozen=True):
    """Task → agent: end the job within its grace period; ``reason`` goes into the log."""

    reason: str


class Steer(Tagged, frozen=True):
    """Task → agent: raise these flags of the event page; ``why`` goes into the log."""

    flags: tuple[str, ...]
    why: str


class Hello(Tagged, frozen=True):
    """Agent → task, first message: ``version`` is its ``VERSION``, ``python`` its interpreter.

    ``torch``, ``python_version`` and ``launcher`` are the versions of torch, Python and this
    package in the agent, "" if not known.
    """

    pid: int
    python: str
    version: int = VERSION
    torch: str = ""
    python_version: str = ""
    launcher: str = ""


class LedgerServed(Tagged, frozen=True):
    """Agent → task: this node serves the ledger of its job, at ``endpoint``."""

    endpoint: str


class OutputLines(Tagged, frozen=True):
    """Agent → task: lines that a rank printed on ``stream`` (stdout or stderr), one after another.

    ``text`` has them with newlines between, and none at its end. ``prefix`` is what each begins
    with in the task's log, if the job has a template for that; else it is empty.
    """

    rank: int
    stream: str
    text: str
    prefix: str = ""


class LogRecord(Tagged, frozen=True):
    """Agent → task: one record of the agent's own log; ``level`` is a name of ``logging``."""

    level: str
    logger: str
    text: str


class Result(Tagged, frozen=True):
    """Agent → task: what one rank returned, as plain JSON.

    One message for each rank, in the order of the ranks, before ``JobSucceeded``.
    """

    rank: int
    value: Any


class ResultInFile(Tagged, frozen=True):
    """Agent → task, instead of a ``Result``: the value is in the results file.

    It takes ``size`` bytes at ``offset``, as JSON or as an archive.
    """

    rank: int
    offset: int
    size: int


class JobSucceeded(Tagged, frozen=True):
    """Agent → task, last message: all ``ranks`` of this node have succeeded."""

    ranks: tuple[int, ...]


class JobFailed(Tagged, frozen=True):
    """Agent → task, last message: the job failed.

    ``error`` is the name of the exception's class, ``report`` its text. ``retryable`` is as in
    ``llutil.errors``: the same launch may succeed if it is tried again at once. ``job_failure`` is
    what went wrong in the whole job.
    """

    error: str
    report: str
    retryable: bool
    job_failure: JobFailure


Message = (
    Spec
    | Stop
    | Steer
    | Hello
    | LedgerServed
    | OutputLines
    | LogRecord
    | JobEvent
    | Result
    | ResultInFile
    | JobSucceeded
    | JobFailed
)


def encode(message: Message) -> bytes:
    """``message`` as one line of JSON, with its newline."""
    return json.dumps(to_json(message), separators=(",", ":")).encode() + b"\n"


def to_json(message: Message) -> dict[str, Any]:
    """``message`` as plain values for JSON."""
    # Not by msgspec's own JSON: it refuses lone surrogates, and a rank may print any text.
    body: dict[str, Any] = _plain(message)
    return body


def _plain(value: object) -> Any:
    return msgspec.to_builtins(value, str_keys=True, enc_hook=_revealed)


def _revealed(value: object) -> str:
    if isinstance(value, Secret):
        return str(value)
    raise TypeError(f"{type(value).__name__} is not JSON")


def unsendable(config: LaunchConfig) -> Iterator[Problem]:
    """The problems with values of ``config`` that cannot be sent to an agent."""
    for one in fields(config):
        try:
            _plain(getattr(config, one.name))
        except TypeError as error:
            yield Problem(one.name, f"cannot be sent to the agent: {error}")


def from_json(body: object) -> Message:
    """The message of which ``to_json`` made ``body``.

    Fields that this version does not know are ignored.

    :raises ConfigError: ``body`` is not a message, or a spec of another version.
    """
    kind, version = (
        (body.get("type"), body.get("version")) if isinstance(body, dict) else (None, None)
    )
    if kind == "spec" and version != VERSION:
        raise ConfigError(
            f"the spec is of version {version}, and this agent reads version {VERSION}: "
            "install the same airflow-provider-elastic-launch on both sides"
        )
    try:
        message: Message = msgspec.convert(body, type=Message, str_keys=True)
    except msgspec.ValidationError as error:
        raise ConfigError(
            # Not the whole message: a spec may hold a password.
            f"not a message on the agent's socket: {kind or body!r:.200} ({error})"
        ) from error
    return message
