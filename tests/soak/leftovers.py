"""What the soak's jobs have left behind, when all of them have ended and Airflow still runs.

This module may import nothing but the standard library, etcd3's and kazoo's clients,
``llutil.testing``, ``tests.support`` and its neighbours here.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Collection, Iterator
from contextlib import suppress
from pathlib import Path

import psutil  # type: ignore[import-untyped]  # psutil ships no types

from llutil.ledgers.etcd.etcd3_import import etcdrpc
from llutil.testing.leftovers import half_checkpoints
from tests.soak.deployment import Deployment
from tests.support.etcd_servers import EtcdServer
from tests.support.networks import Host
from tests.support.zookeeper_servers import ZooKeeperServer, client

__all__ = ["left_by_jobs"]

_PAUSE = 0.5
_KEPT = ("logs-*", "*.results")
"""What is meant to stay: the log files of a job that failed, and values that nobody could take."""
_FOR_NEXT_TRY = (".agent_record", ".orphan_log")
"""What an agent whose task was lost leaves for a next try on its host. If that runs on the other
one, it stays.
"""


def left_by_jobs(there: Deployment, seconds: float, retried: Collection[str]) -> list[str]:
    """What is there yet after so many ``seconds`` at most, each in words. ``retried`` are the names
    of the runs that needed more than one try.
    """
    deadline = time.monotonic() + seconds
    while (found := [*_left(there, retried)]) and time.monotonic() < deadline:
        time.sleep(_PAUSE)
    return found


def _left(there: Deployment, retried: Collection[str]) -> Iterator[str]:
    for number, host in enumerate(there.workers):
        yield from _processes(there, number, host)
        yield from (f"{host.name} listens at {one}" for one in host.listeners())
        yield from _files(host, retried)
    for folder in there.checkpoints.iterdir():
        # What a job was saving when it failed for good is there until it is cleared, or for ever.
        if not folder.name.startswith("fails_"):
            yield from half_checkpoints(folder)
    if there.members:
        first = there.members[0]
        keys = _in_etcd(first) if isinstance(first, EtcdServer) else _in_zookeeper(first)
        yield from (f"in the store: {key}" for key in keys)


def _processes(there: Deployment, number: int, host: Host) -> Iterator[str]:
    """All of the host's, but the Celery worker, its pool, and the process that agents are forked
    from.
    """
    worker = there.pid(f"worker-{number}")
    with suppress(psutil.NoSuchProcess):
        own = {worker, there.pid(f"python-{number}")}
        own |= {child.pid for child in psutil.Process(worker).children()}
        argv = ["ip", "netns", "pids", host.namespace]
        said = subprocess.run(argv, check=True, capture_output=True, text=True).stdout
        for pid in {int(word) for word in said.split()} - own:
            with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                process = psutil.Process(pid)
                if process.status() != psutil.STATUS_ZOMBIE:
                    yield f"process {pid} on {host.name}: {' '.join(process.cmdline())[:200]}"


def _files(host: Host, retried: Collection[str]) -> Iterator[str]:
    for folder in ("tmp", "shm"):
        for path in (host.folder / folder).glob("*"):
            if path.name.startswith(("llutil", "elastic-launch")):
                inner = [*path.iterdir()] if path.is_dir() else [path]
                yield from (f"file {one}" for one in inner if not _is_meant_to_stay(one, retried))


def _is_meant_to_stay(path: Path, retried: Collection[str]) -> bool:
    if any(path.match(pattern) for pattern in _KEPT):
        return True
    return path.suffix in _FOR_NEXT_TRY and any(f".{name}." in path.name for name in retried)


def _in_etcd(member: EtcdServer) -> Iterator[str]:
    """Members, which go with their nodes; and whatever no lease will ever end. What a generation
    leaves is there for a day.
    """
    with member.channel() as channel:
        everything = etcdrpc.RangeRequest(key=b"\0", range_end=b"\0", keys_only=True)
        found = etcdrpc.KVStub(channel).Range(everything, timeout=10).kvs
    for one in found:
        key = one.key.decode()
        if "/members/" in key or not one.lease:
            yield f"{key}{'' if one.lease else ', without a lease'}"


def _in_zookeeper(member: ZooKeeperServer) -> Iterator[str]:
    """The records of sessions that live yet."""
    with client(member) as one:
        paths = ["/"]
        while paths:
            path = paths.pop()
            data = one.exists(path)
            if data is not None and data.ephemeralOwner:
                yield path
            with suppress(Exception):  # it has just gone
                paths += [f"{path.rstrip('/')}/{name}" for name in one.get_children(path)]
