"""What an agent leaves for the next try of its task: who it is while it lives, and how it ended.

A task process may be killed in a way that nobody is asked about: by SIGKILL, by Airflow, by the
kernel for lack of memory. Its agent outlives it, and knows why the job ended; the next try on the
same host reads it in this file, finds by it an agent that still lives, and the mark that all
processes of the job carry.

The agent writes the file when its job begins and each time that it learns more; its task removes it
once it has heard how the job ended. This module reads and writes files and nothing else, and may
import nothing but the standard library, msgspec, ``llutil.errors`` and
``llutil.task_link.messages``.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import msgspec

from llutil.errors import ConfigError, StoppedError
from llutil.task_link.messages import JobFailed, JobSucceeded

__all__ = ["AgentRecord"]

_VERSION = 1


class AgentRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One agent's.

    ``launch`` is what its task called the launch. ``pid`` and ``mark`` say which processes are its
    own, ``grace`` how many seconds it gives its workers. ``task`` and ``task_began`` are the number
    of the task process and when that began (see ``llutil.system.processes.began``). ``asked`` is
    why the job was to end, if anybody said so while the task lived. ``alone`` says that the task
    went away before it was told how the job ended; ``kills`` how many processes the kernel had
    killed by then for lack of memory since the last round began, as ``counted_by``, a memory
    cgroup, says. ``end`` is what the agent had to say last.
    """

    launch: str
    pid: int
    mark: str
    grace: float
    task: int = 0
    task_began: str = ""
    asked: str = ""
    alone: bool = False
    kills: int = 0
    counted_by: str = ""
    end: JobFailed | JobSucceeded | None = None
    version: int = _VERSION

    @property
    def failed(self) -> JobFailed | None:
        """How the job failed by itself; None if it did not: it succeeded, was stopped, or its agent
        was lost.
        """
        end = self.end
        return end if isinstance(end, JobFailed) and end.error != StoppedError.__name__ else None

    @property
    def succeeded(self) -> bool:
        """Whether the job succeeded."""
        return isinstance(self.end, JobSucceeded)

    def write(self, path: str | os.PathLike[str]) -> None:
        """Put it into the file ``path``, in the place of what was there: all of it, or nothing.

        :raises OSError: it could not be written.
        """
        body = msgspec.to_builtins(self)
        # Its own threads may both write. The name has the process's number, since another agent may
        # write as well.
        new = Path(f"{os.fspath(path)}.{os.getpid()}")
        new.write_text(json.dumps(body), encoding="utf-8")
        new.replace(path)

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> AgentRecord | None:
        """The one in the file ``path``; None if there is none.

        :raises ConfigError: there is something else, or one of another version.
        """
        try:
            text = Path(path).read_text(encoding="utf-8")
        except FileNotFoundError:
            return None
        try:
            found = msgspec.convert(json.loads(text), type=cls)
            if found.version != _VERSION:
                raise ValueError(f"wanted version {_VERSION}, found {found.version}")
        except ValueError as error:
            raise ConfigError(
                f"{os.fspath(path)} is not what an agent of this version leaves: {text[:80]!r} "
                f"({error})"
            ) from error
        return found
