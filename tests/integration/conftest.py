"""What integration tests share: torch is imported, and afterwards nothing of a test is left."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import warm_python
from tests.support.etcd_servers import CALM, EtcdServer
from tests.support.fake_task import FakeTask
from tests.support.launches import hide_torch
from tests.support.leftovers import nothing_left
from tests.support.served_servers import ServedServer
from tests.support.stores import ETCD, SERVED, ZOOKEEPER
from tests.support.torch_forks import TorchForks
from tests.support.warm_python import WarmPython
from tests.support.zookeeper_servers import ZooKeeperServer


@pytest.fixture(scope="session", autouse=True)
def _torch() -> None:
    """Import it before a test looks at threads and descriptors, or at its watch."""
    import torch.distributed.elastic.agent.server.api  # noqa: F401 - imported for its side effects


@pytest.fixture(autouse=True)
def temporary(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Path]:
    """A folder for temporary files of this test alone, also of the processes that it starts."""
    tmp_path_factory.getbasetemp()  # pytest's own folder is settled before TMPDIR changes
    # A short name: a socket's path may have 107 characters.
    folder = Path(tempfile.mkdtemp(prefix="test-"))
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    try:
        with nothing_left(folder):
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def no_torch(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """A world in which workers and their fork server find no torch, whose import would take
    seconds.
    """
    folder = tmp_path_factory.mktemp("no-torch")
    hide_torch(folder)
    path = [str(folder), os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, path)))


@pytest.fixture(scope="session")
def torch_forks() -> Iterator[TorchForks]:
    """A process to fork agents from, which call a function."""
    torch_forks = TorchForks()
    yield torch_forks
    torch_forks.close()


@pytest.fixture(scope="session")
def python_with_torch(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WarmPython]:
    """A process to fork agents from, which are command lines."""
    address = tmp_path_factory.mktemp("warm") / "python"
    env = dict(os.environ)
    with subprocess.Popen(
        warm_python.command(address), env=env, stdin=subprocess.DEVNULL
    ) as process:
        yield WarmPython(address, env)
        process.kill()


@pytest.fixture
def warm_agents(python_with_torch: WarmPython, monkeypatch: pytest.MonkeyPatch) -> None:
    """Agents of a ``FakeTask`` have torch imported when they begin."""
    monkeypatch.setattr(FakeTask, "popen", staticmethod(python_with_torch.popen))


@pytest.fixture
def folder(tmp_path: Path) -> str:
    """Where workers leave marks."""
    return str(tmp_path)


@pytest.fixture(scope="session")
def shared_etcd() -> Iterator[EtcdServer]:
    """One etcd for all tests that do not disturb it."""
    with ETCD.start(*CALM) as server:
        yield server


@pytest.fixture(scope="session")
def shared_zookeeper() -> Iterator[ZooKeeperServer]:
    """One ZooKeeper for all tests that do not disturb it."""
    with ZOOKEEPER.start() as server:
        yield server


@pytest.fixture(scope="session")
def shared_served() -> Iterator[ServedServer]:
    """One server of a served ledger for all tests that do not disturb it."""
    with SERVED.start() as server:
        yield server
