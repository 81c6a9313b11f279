"""Where a rank's checkpoints lie and who takes part in them, as its environment says.

The agent sets the environment. Without an agent there is one process, and its folder is
``./checkpoints``. So it is for a job of one node that has no ``checkpoint_path``, in a folder of
its own there if the job has a name; such a job of several nodes has no place that all its ranks
share. This module may import only the standard library, ``llutil.errors`` and
``llutil.job_name``.
"""

from __future__ import annotations

import hashlib
import math
import os
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from llutil.errors import ConfigError
from llutil.job_name import is_by_chance, is_id, job_name

__all__ = [
    "EVERY",
    "FOLDER",
    "KEEP",
    "LIFE",
    "OF_THE_AGENT",
    "RESUME",
    "RESUMES",
    "ROUND",
    "TIMEOUT",
    "WORKING_DIRECTORY",
    "Place",
    "checkpoint_every",
    "has_place",
    "job_of",
    "place",
    "working_directory",
]

FOLDER = "LLUTIL_CHECKPOINTS"
"""The job's own folder, or its URI. The last part of it is the name of the job in markers."""
RESUME = "LLUTIL_RESUME"
"""One of ``RESUMES``, "auto" by default."""
RESUMES = ("auto", "always", "never")
"""What an earlier round has left is resumed: unless the job has succeeded since; always; never."""
LIFE = "LLUTIL_JOB_LIFE"
"""The name of the job's life, which all of its tries share; a job that has succeeded in it is not
begun afresh by the next try. Empty: each launch is a life of its own. Airflow's task sets it.
"""
ROUND = "LLUTIL_ROUND"
"""A name of the round that no other round has, also not of an earlier life of the job."""
WORKING_DIRECTORY = "LLUTIL_WORKING_DIRECTORY"
"""The agent's working directory. Without a folder of the job's own, ranks save below that one,
wherever each of them has gone.
"""
EVERY = "LLUTIL_CHECKPOINT_EVERY"
"""After how many steps ``worker.step`` asks for a checkpoint by itself."""
KEEP = "LLUTIL_CHECKPOINT_KEEP"
"""How many committed checkpoints are kept; 3 by default."""
TIMEOUT = "LLUTIL_CHECKPOINT_TIMEOUT"
"""Seconds that a rank waits for the others of its round, at the end of a checkpoint and before it
resumes; 600 by default.
"""

OF_THE_AGENT = (FOLDER, RESUME, ROUND, WORKING_DIRECTORY, EVERY, KEEP)
"""The variables that an agent sets for its ranks, or keeps from them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A rank's part in the checkpoints of its job."""

    folder: str
    job: str
    rank: int
    world_size: int
    round: str
    """Empty for a process that no agent has started."""
    keep: int
    timeout: float
    resume: str = "auto"
    life: str = ""
    is_default: bool = False
    """Whether nobody has named the folder. Then all ranks are of one node."""
    process: str = ""
    """A name by chance for the only rank of a round, which may be several processes, one after the
    other: they save nothing together.
    """

    def attempt(self, count: int) -> str:
        """The name of the round's attempt ``count`` to save, the same on all of its ranks: 12
        hexadecimal digits. Attempts are counted from 1.
        """
        return _digits(f"{self.process or self.round}\n{count}")

    def decision(self) -> str:
        """The name of what the round has decided to resume from, the same on all of its ranks and
        in all of their processes: 12 hexadecimal digits.
        """
        return _digits(f"{self.round}\n0")


def has_place(environment: Mapping[str, str]) -> bool:
    """Whether there is a place for checkpoints that all ranks of the job share."""
    return bool(environment.get(FOLDER)) or _nodes(environment) == 1


def place(environment: Mapping[str, str]) -> Place:
    """What the environment says.

    :raises ConfigError: there is no place that all ranks share, a variable has no possible value,
        or the ranks have no common round.
    """
    folder = environment.get(FOLDER, "")
    if not has_place(environment):
        raise ConfigError(
            f"this job of {_nodes(environment)} nodes has no place for checkpoints: it was "
            "launched without a checkpoint_path. Give it one: LaunchConfig(checkpoint_path=...), "
            "ElasticLaunchOperator(checkpoint_path=...), llutil run --checkpoint-path"
        )
    world_size = _number(environment, "WORLD_SIZE", "1", least=1)
    name = environment.get(ROUND, "")
    if world_size > 1 and not name:
        raise ConfigError(
            f"worker.checkpoint among {world_size} ranks needs {ROUND}, which this launcher's own "
            "agent sets: launch them with launch_agent, ElasticLaunchOperator or python -m llutil, "
            "and not by torchrun"
        )
    return Place(
        folder=folder or _default_folder(environment),
        job=job_of(folder),
        rank=_number(environment, "RANK", "0"),
        world_size=world_size,
        round=name,
        keep=_number(environment, KEEP, "3", least=1),
        timeout=_seconds(environment, TIMEOUT, "600"),
        resume=_one_of(environment, RESUME, RESUMES),
        life=environment.get(LIFE, ""),
        is_default=not folder,
        process="" if world_size > 1 else uuid.uuid4().hex,
    )


def working_directory() -> str:
    """The working directory of this process; "" if it was removed."""
    try:
        return os.getcwd()  # noqa: PTH109 - links stay links
    except OSError:
        return ""


def job_of(folder: str) -> str:
    """The name that the job with this folder has in markers."""
    return folder.rstrip("/").rpartition("/")[2]


def checkpoint_every(environment: Mapping[str, str]) -> int:
    """The number of steps between two checkpoints; 0 for none.

    :raises ConfigError: it is no number of steps.
    """
    return _number(environment, EVERY, "1", least=1) if environment.get(EVERY) else 0


def _nodes(environment: Mapping[str, str]) -> int:
    """How many nodes the round has, if it is one of our own agent's; else 1."""
    return _number(environment, "GROUP_WORLD_SIZE", "1", least=1) if environment.get(ROUND) else 1


def _default_folder(environment: Mapping[str, str]) -> str:
    """Below the agent's working directory, or without an agent below this process's own. Nobody
    finds the folder of a name by chance again.
    """
    path, name = Path("checkpoints"), ""
    if environment.get(ROUND):
        path = Path(environment.get(WORKING_DIRECTORY, ""), path)
        name = environment.get("TORCHELASTIC_RUN_ID", "")
    if name and not is_by_chance(name):
        path /= name if is_id(name) else job_name([name], [name])
    return str(path)


def _digits(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()[:12]


def _one_of(environment: Mapping[str, str], name: str, words: tuple[str, ...]) -> str:
    """What is said, or else the first of ``words``."""
    text = environment.get(name) or words[0]
    if text not in words:
        raise ConfigError(
            f"{name} is {text!r} in the environment; wanted one of {', '.join(map(repr, words))}"
        )
    return text


def _number(environment: Mapping[str, str], name: str, default: str, least: int = 0) -> int:
    text = environment.get(name) or default
    if not text.isdecimal() or int(text) < least:
        raise ConfigError(
            f"{name} is {text!r} in the environment; wanted a whole number of {least} or more"
        )
    return int(text)


def _seconds(environment: Mapping[str, str], name: str, default: str) -> float:
    text = environment.get(name) or default
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < math.inf:
        raise ConfigError(f"{name} is {text!r} in the environment; wanted seconds, more than 0")
    return seconds
