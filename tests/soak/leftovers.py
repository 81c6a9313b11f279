"""What the soak's jobs have left behind, when all of them have ended and Airflow still runs.

This module may import nothing but the standard library, etcd3's and kazoo's clients,
``llutil.testing``, ``tests.support`` and its neighbours here.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil  # type: ignore[import-untyped]  # psutil ships no types

from llutil.ledgers.etcd.etcd3_import import etcdrpc
from llutil.testing.leftovers import half_checkpoints
from tests.soak.deployment import Deployment
from tests.support.etcd_servers import EtcdServer
from tests.support.networks import Host
from tests.support.zookeeper_servers import ZooKeeperServer, client

__all__ = ["HostState", "left_by_jobs", "left_in_etcd", "left_on"]

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


@dataclass(frozen=True, slots=True, kw_only=True)
class HostState:
    """What is on a worker's host: its processes' command lines by pid, which of them are Airflow's
    ``own``, the ports that somebody listens on, and files of ours.
    """

    name: str
    processes: Mapping[int, str]
    own: Collection[int]
    listeners: Collection[str]
    files: Collection[Path]


def left_on(host: HostState, retried: Collection[str]) -> Iterator[str]:
    """What should not be on a host any more."""
    for pid in sorted(host.processes.keys() - set(host.own)):
        yield f"process {pid} on {host.name}: {host.processes[pid]}"
    yield from (f"{host.name} listens at {one}" for one in host.listeners)
    yield from (f"file {one}" for one in host.files if not _is_meant_to_stay(one, retried))


def left_in_etcd(leases: Mapping[str, int]) -> Iterator[str]:
    """Members, which go with their nodes; and whatever no lease will ever end: keys with lease 0.
    What a generation leaves is there for a day.
    """
    for key, lease in leases.items():
        if "/members/" in key or not lease:
            yield f"in etcd: {key}{'' if lease else ', without a lease'}"


def _is_meant_to_stay(path: Path, retried: Collection[str]) -> bool:
    if any(path.match(pattern) for pattern in _KEPT):
        return True
    names = (f".{name}{end}" for name in retried for end in ".-")
    return path.suffix in _FOR_NEXT_TRY and any(name in path.name for name in names)


def _left(there: Deployment, retried: Collection[str]) -> Iterator[str]:
    for number, host in enumerate(there.workers):
        yield from left_on(_state(there, number, host), retried)
    for folder in there.checkpoints.iterdir():
        # What a job was saving when it failed for good is there until it is cleared, or for ever.
        if not folder.name.startswith("fails_"):
            yield from half_checkpoints(folder)
    if there.members:
        first = there.members[0]
        if isinstance(first, EtcdServer):
            yield from left_in_etcd(_leases(first))
        else:
            yield from (f"in ZooKeeper: {path}" for path in _in_zookeeper(first))


def _state(there: Deployment, number: int, host: Host) -> HostState:
    worker = there.pid(f"worker-{number}")
    own = {worker, there.pid(f"python-{number}")}
    with suppress(psutil.NoSuchProcess):
        own |= {child.pid for child in psutil.Process(worker).children()}
    return HostState(
        name=host.name,
        processes=_processes(host),
        own=own,
        listeners=host.listeners(),
        files=[*_files(host)],
    )


def _processes(host: Host) -> dict[int, str]:
    argv = ["ip", "netns", "pids", host.namespace]
    said = subprocess.run(argv, check=True, capture_output=True, text=True).stdout
    found = {}
    for pid in map(int, said.split()):
        with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            process = psutil.Process(pid)
            if process.status() != psutil.STATUS_ZOMBIE:
                found[pid] = " ".join(process.cmdline())[:200]
    return found


def _files(host: Host) -> Iterator[Path]:
    for folder in ("tmp", "shm"):
        for path in (host.folder / folder).glob("*"):
            if path.name.startswith(("llutil", "elastic-launch")):
                yield from path.iterdir() if path.is_dir() else [path]


def _leases(member: EtcdServer) -> dict[str, int]:
    """The lease of each key; 0 for none."""
    with member.channel() as channel:
        everything = etcdrpc.RangeRequest(key=b"\0", range_end=b"\0", keys_only=True)
        found = etcdrpc.KVStub(channel).Range(everything, timeout=10).kvs
    return {one.key.decode(): one.lease for one in found}


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
