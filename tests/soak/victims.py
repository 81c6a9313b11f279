"""Who can be struck now: the processes of the soak's jobs, by their roles.

This module may import nothing but the standard library, psutil, ``llutil.agent_socket`` and its
neighbours here.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil  # type: ignore[import-untyped]  # psutil ships no types

from llutil.agent_socket.folder import socket_names
from tests.soak.deployment import Deployment

__all__ = ["Victim", "agents", "guardians", "ranks", "supervisors", "tasks"]

_JOB = b"SOAK_JOB="
_GUARDIAN = b"llutil.agent.guardian"


@dataclass(frozen=True, slots=True)
class Victim:
    """A process, and the folder of the job that it belongs to."""

    pid: int
    job: str

    def __str__(self) -> str:
        return f"pid {self.pid} of {Path(self.job).name or 'no known job'}"


def agents(there: Deployment) -> list[Victim]:
    """The agents of both hosts."""
    found = []
    for host in there.workers:
        for folder in (host.folder / "shm").glob("llutil-*"):
            if folder.is_dir():
                found += [Victim(one.pid, _job_of(one.pid)) for one in socket_names(folder)]
    return [one for one in found if one.job]


def guardians(there: Deployment) -> list[Victim]:
    """The guardians of these agents."""
    found = []
    for agent in agents(there):
        found += [Victim(pid, agent.job) for pid in _children(agent.pid) if _GUARDIAN in _read(pid)]
    return found


def ranks(running: list[str]) -> list[Victim]:
    """The ranks that have made a step in the jobs of these folders."""
    found = []
    for job in running:
        for path in Path(job).glob("*-*-*"):
            pid = int(path.name.rpartition("-")[2])
            if _job_of(pid) == job:
                found.append(Victim(pid, job))
    return found


def supervisors(there: Deployment) -> list[Victim]:
    """The children of Celery workers that have a task."""
    found = []
    for number in range(len(there.workers)):
        pool = _children(there.pid(f"worker-{number}"))
        found += [Victim(pid, _job_by_log(there, pid)) for pid in pool if _children(pid)]
    return found


def tasks(there: Deployment) -> list[Victim]:
    """Airflow's processes that run tasks."""
    return [Victim(pid, one.job) for one in supervisors(there) for pid in _children(one.pid)]


def _job_of(pid: int) -> str:
    """The folder of its job; "" if it has none, or is no more."""
    variables = _read(pid, "environ").split(b"\0")
    return next((one[len(_JOB) :].decode() for one in variables if one.startswith(_JOB)), "")


def _job_by_log(there: Deployment, pid: int) -> str:
    """The folder of the job whose log that process writes: a run is named after it."""
    for link in _links(pid):
        _, found, rest = link.partition("/run_id=job-")
        if found:
            return str(there.folder / "jobs" / f"job-{rest.partition('/')[0]}")
    return ""


def _links(pid: int) -> Iterator[str]:
    with suppress(OSError):
        for name in os.listdir(f"/proc/{pid}/fd"):  # noqa: PTH208 - numbers
            with suppress(OSError):
                yield os.readlink(f"/proc/{pid}/fd/{name}")  # noqa: PTH115 - a text


def _children(pid: int) -> list[int]:
    with suppress(psutil.NoSuchProcess):
        return [child.pid for child in psutil.Process(pid).children()]
    return []


def _read(pid: int, name: str = "cmdline") -> bytes:
    with suppress(OSError):
        return Path(f"/proc/{pid}/{name}").read_bytes()
    return b""
