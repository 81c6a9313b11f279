"""A store, a process to fork agents from, and jobs whose history is looked at after each test."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Protocol

import pytest

from llutil.backends.endpoints import Endpoint
from tests.integration.rendezvous.jobs import Job
from tests.support.etcd_servers import EtcdServer
from tests.support.store_history import ServerPart, read_history
from tests.support.stores import ETCD, Server, Store
from tests.support.torch_forks import TorchForks
from tests.support.zookeeper_servers import ZooKeeperServer


class MakeJob(Protocol):
    """Makes jobs on the server of this test, or at other endpoints of a store of its kind."""

    def __call__(self, *endpoints: Endpoint, run_id: str = ..., **config: Any) -> Job:
        """One more job, with a folder of its own. ``config`` is for all its nodes."""


@pytest.fixture
def store() -> Store:
    """What jobs meet through; tests that hold for several stores give it by a parameter."""
    return ETCD


@pytest.fixture
def server(
    store: Store, shared_etcd: EtcdServer, shared_zookeeper: ZooKeeperServer, temporary: Path
) -> Iterator[ServerPart]:
    """A part of the shared server. What was written into it must be sound in the end.

    (Both servers are started, since what a test starts by itself ends with it. A served ledger is
    one job's, so each test has its own.)
    """
    with ExitStack() as stack:
        if store.has_namespaces:
            shared = shared_etcd if store is ETCD else shared_zookeeper
            part = ServerPart(shared, f"tests/{secrets.token_hex(4)}")
        else:
            part = ServerPart(stack.enter_context(store.start()), "llutil")
        yield part
        read_history(part).check()


@pytest.fixture
def own_server(temporary: Path, store: Store) -> Iterator[Server]:
    """A server of this test alone, for what would harm others. The same holds for it."""
    with store.start() as server:
        yield server
        read_history(server).check()


@pytest.fixture
def make_job(
    request: pytest.FixtureRequest, torch_forks: TorchForks, tmp_path: Path, store: Store
) -> Iterator[MakeJob]:
    """Makes jobs, of which nothing runs in the end."""
    jobs: list[Job] = []

    def make(*endpoints: Endpoint, run_id: str = "job", **config: Any) -> Job:
        folder = tmp_path / f"job{len(jobs)}"
        folder.mkdir()
        if not endpoints:
            server = request.getfixturevalue("server")
            endpoints = (server.endpoint,)
            if isinstance(server, ServerPart):
                config.setdefault("namespace", server.namespace)
        jobs.append(Job(torch_forks, folder, store, *endpoints, run_id=run_id, **config))
        return jobs[-1]

    yield make
    for one in jobs:
        one.close()
        request.node.add_report_section("call", "agents", one.told())


@pytest.fixture
def job(server: Server | ServerPart, make_job: MakeJob) -> Job:
    """A job on the server."""
    return make_job()
