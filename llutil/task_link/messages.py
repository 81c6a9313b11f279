"""What the Airflow task and its agent process say to each other: values, and their JSON lines.

One private socket, one JSON object a line, both ways. The task sends one ``Spec`` and then commands
(``Stop``); the agent answers with events, the last of which is ``JobSucceeded`` or ``JobFailed``.
When the socket closes, the other side is gone: the agent then stops the job within ``Spec.grace``
seconds.

This module does no I/O: ``encode`` gives bytes, ``Decoder`` takes them. It may import nothing but
the standard library, ``llutil.entrypoint``, ``llutil.errors`` and ``llutil.failure``, since Airflow
imports it to parse a DAG.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from llutil import entrypoint as _entrypoint
from llutil.errors import ConfigError
from llutil.failure import Failure, FailureClass

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
]

VERSION = 2
"""Raised when a message changes so that an older side would misread it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Spec:
    """Task → agent, first: the job.

    ``config`` holds ``LaunchConfig`` fields by name, as JSON. ``grace`` is how long, in seconds,
    workers get between being asked to stop and being killed. ``result_limit`` is the most bytes of
    JSON that one rank's value may take. ``afterlog`` names the file that takes what the agent
    prints once the task is gone. ``arrays``: values that go into a results file keep their arrays,
    see ``llutil.serialization.npz_archive``. ``legacy`` names the one that says who the agent is
    and how it ended, empty for none; ``launch`` is what the task calls this launch in there.
    """

    config: Mapping[str, Any]
    entrypoint: _entrypoint.Entrypoint
    grace: float
    result_limit: int
    afterlog: str
    legacy: str = ""
    launch: str = ""
    version: int = VERSION
    arrays: bool = False


@dataclass(frozen=True, slots=True)
class Stop:
    """Task → agent: end the job within its grace period. ``reason`` goes into the log."""

    reason: str


@dataclass(frozen=True, slots=True)
class Hello:
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


@dataclass(frozen=True, slots=True)
class Hosting:
    """Agent → task: this node hosts the store of its job; the others find it behind the door at
    ``endpoint``.
    """

    endpoint: str


@dataclass(frozen=True, slots=True)
class OutputLine:
    """Agent → task: one line that a rank printed, without its newline. ``stream`` is stdout or
    stderr.
    """

    rank: int
    stream: str
    text: str


@dataclass(frozen=True, slots=True)
class LogRecord:
    """Agent → task: one record of the agent's own log. ``level`` is a name of ``logging``'s."""

    level: str
    logger: str
    text: str


@dataclass(frozen=True, slots=True)
class RoundBegan:
    """Agent → task: workers have started. ``ranks`` are this node's; ``restart`` counts restarts so
    far.

    Without ``ranks``, and of a world of 0: this node's workers have ended, and it waits for what
    comes next.
    """

    restart: int
    world_size: int
    ranks: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Progress:
    """Agent → task, at most every half second: ``{rank: (step, total)}``; total 0 means unknown."""

    ranks: Mapping[int, tuple[int, int]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Result:
    """Agent → task, one a rank, in rank order, before ``JobSucceeded``: what the rank returned, as
    plain JSON.
    """

    rank: int
    value: Any


@dataclass(frozen=True, slots=True)
class ResultInFile:
    """Agent → task, in place of a ``Result``: the value's JSON, or archive, is in the results file,
    ``size`` bytes at ``offset``.
    """

    rank: int
    offset: int
    size: int


@dataclass(frozen=True, slots=True)
class JobSucceeded:
    """Agent → task, last: every rank of this node ended well, and these are the ranks."""

    ranks: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class JobFailed:
    """Agent → task, last: the job failed. ``error`` is the exception's class name, ``report`` its
    text.

    ``failure_class`` and ``retryable`` are as in ``llutil.errors``: retryable means that the same
    launch, tried again at once, has a chance. ``failure`` is the first failure of a rank in the
    whole job, if that is what it ended by; its texts are bounded since it was made.
    """

    error: str
    report: str
    failure_class: FailureClass
    retryable: bool
    failure: Failure | None = None


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
    body = to_json(message)
    return json.dumps(body, separators=(",", ":"), ensure_ascii=True).encode() + b"\n"


def to_json(message: Message) -> dict[str, Any]:
    """The message as JSON has it."""
    match message:
        case Spec():
            body = {
                "config": dict(message.config),
                "entrypoint": _entrypoint.to_json(message.entrypoint),
                "grace": message.grace,
                "result_limit": message.result_limit,
                "afterlog": message.afterlog,
                "legacy": message.legacy,
                "launch": message.launch,
                "version": message.version,
                "arrays": message.arrays,
            }
        case _:
            body = asdict(message)
    body["type"] = type(message).__name__.lower()
    return body


def from_json(body: dict[str, Any]) -> Message:
    """The message that ``to_json`` made this of; ``body`` is used up.

    :raises KeyError, TypeError, ValueError, AttributeError: it is none; a ``ConfigError`` says what
        else it is.
    """
    kind = body.pop("type", None)
    match kind:
        case "spec":
            if body.get("version") != VERSION:
                raise ConfigError(
                    f"the spec is of version {body.get('version')}, this agent speaks {VERSION}: "
                    "install the same airflow-provider-elastic-launch on both sides"
                )
            body["entrypoint"] = _entrypoint.from_json(body["entrypoint"])
            return Spec(**body)
        case "stop":
            return Stop(**body)
        case "hello":
            return Hello(**body)
        case "hosting":
            return Hosting(**body)
        case "outputline":
            return OutputLine(**body)
        case "logrecord":
            return LogRecord(**body)
        case "roundbegan":
            return RoundBegan(body["restart"], body["world_size"], tuple(body["ranks"]))
        case "progress":
            return Progress({int(r): (s, t) for r, (s, t) in body["ranks"].items()})
        case "result":
            return Result(**body)
        case "resultinfile":
            return ResultInFile(**body)
        case "jobsucceeded":
            return JobSucceeded(tuple(body["ranks"]))
        case "jobfailed":
            failure = body["failure"]
            return JobFailed(
                **body
                | {
                    "failure_class": FailureClass(body["failure_class"]),
                    "failure": None if failure is None else Failure.from_json(failure),
                }
            )
        case _:
            raise ConfigError(f"a message of unknown type {kind!r} on the agent's socket")


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
                message = from_json(json.loads(line))
            except (KeyError, TypeError, AttributeError, ValueError, RecursionError) as error:
                if isinstance(error, ConfigError):
                    raise
                raise ConfigError(f"not a message on the agent's socket: {line[:200]!r}") from error
            yield message
