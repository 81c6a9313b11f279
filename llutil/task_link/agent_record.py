"""What an agent leaves for the next try of its task: who it is while it lives, and how it ended.

A task process may be killed before anybody can ask why: by SIGKILL, by Airflow, by the kernel for
lack of memory. Its agent outlives it, and knows why the job ended. The next try on the same machine
reads this file. By it, the try finds an agent that still lives, and the mark that all processes of
the job carry.

The agent writes the file when its job begins and each time that it learns more. The task removes it
when it has heard how the job ended. This module only reads and writes files. It may import only the
standard library, msgspec, ``llutil.errors`` and ``llutil.task_link.messages``.
"""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path

import msgspec

from llutil.errors import ConfigError, StoppedError
from llutil.task_link.messages import JobFailed, JobSucceeded

__all__ = ["AgentRecord"]

_VERSION = 2


class AgentRecord(msgspec.Struct, frozen=True, kw_only=True):
    """What one agent has written about itself.

    ``launch`` is the name that its task gave the launch. ``pid`` and ``mark`` say which processes
    are its own. ``grace_period`` is how many seconds it gives its workers to stop.

    ``task_pid`` is the number of the task's process, and ``task_start_ticks`` when that process
    started, in the kernel's ticks since boot. They are 0 and "" if the task was gone by then.
    ``stop_reason`` is why the job was asked to stop, if that happened while the task lived.
    ``task_gone`` says that the task went away before it was told how the job ended.

    ``kills`` is how many processes the kernel had killed for lack of memory, from the start of the
    last round until the task went away; ``counted_by`` names the memory cgroup that counted them.
    ``end`` is the last message of the agent.
    """

    launch: str
    pid: int
    mark: str
    grace_period: float
    task_pid: int = 0
    task_start_ticks: str = ""
    stop_reason: str = ""
    task_gone: bool = False
    kills: int = 0
    counted_by: str = ""
    end: JobFailed | JobSucceeded | None = None
    version: int = _VERSION

    @property
    def failed(self) -> JobFailed | None:
        """How the job failed by itself; None if it succeeded, was stopped, or lost its agent."""
        end = self.end
        return end if isinstance(end, JobFailed) and end.error != StoppedError.__name__ else None

    @property
    def succeeded(self) -> bool:
        """Whether the job succeeded."""
        return isinstance(self.end, JobSucceeded)

    def write(self, path: str | os.PathLike[str]) -> None:
        """Replace the file ``path`` by this record: all of it, or nothing.

        :raises OSError: it could not be written.
        """
        body = msgspec.to_builtins(self)
        # Two threads of an agent may write, and another agent too, hence the pid in the name.
        new = Path(f"{os.fspath(path)}.{os.getpid()}")
        try:
            new.write_text(json.dumps(body), encoding="utf-8")
            new.replace(path)
        except OSError:
            with contextlib.suppress(OSError):
                new.unlink(missing_ok=True)
            raise

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> AgentRecord | None:
        """The record in the file ``path``; None if there is no such file.

        :raises ConfigError: the file holds something else, or a record of another version.
        """
        try:
            content = Path(path).read_bytes()
        except FileNotFoundError:
            return None
        try:
            found = msgspec.convert(json.loads(content.decode("utf-8")), type=cls)
            if found.version != _VERSION:
                raise ValueError(f"wanted version {_VERSION}, found {found.version}")
        except (ValueError, RecursionError) as error:
            raise ConfigError(
                f"{os.fspath(path)} is not what an agent of this version leaves: {content[:80]!r} "
                f"({error})"
            ) from error
        return found
