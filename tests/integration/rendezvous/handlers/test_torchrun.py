"""A plain torchrun with ``--rdzv-backend etcd-v3``, ``zeus-adapter`` or ``served``: torch's own
launcher and agent, and our rendezvous.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from llutil.backends.endpoints import Endpoint
from llutil.rendezvous.protocol.record_codec import decode
from tests.integration.rendezvous.conftest import MakeJob
from tests.integration.rendezvous.jobs import Job, until
from tests.support.ports import free_ports
from tests.support.store_history import left_in, read_history
from tests.support.stores import DURABLE_STORES, SERVED_BY_A_NODE, Server
from tests.support.warm_python import Forked, WarmPython

pytestmark = pytest.mark.launch
_ON_DURABLE_STORES = pytest.mark.parametrize("store", DURABLE_STORES)

_SOON = 120.0  # seconds; a torchrun imports torch first
# Seconds: longer than what is awaited here, so that no lease expires for it.
_LEASE = 40
_WORKER = str(Path(__file__).parents[1] / "worker.py")


class _Torchruns:
    """Processes of torchrun that belong to ``job`` by its files and its store alone."""

    def __init__(self, job: Job, stack: ExitStack, python: WarmPython) -> None:
        self.job = job
        self._stack = stack
        self._python = python
        self.all: dict[str, subprocess.Popen[bytes] | Forked] = {}

    def start(
        self,
        name: str,
        *,
        conf: str = f"last_call_timeout=1,lease_ttl={_LEASE}",
        warm: bool = True,
    ) -> None:
        """Start one. A warm one has torch imported, and our library too."""
        options = {
            "rdzv-backend": self.job.store.torchrun,
            "rdzv-endpoint": str(self.job.endpoints[0]),
            "rdzv-id": self.job.run_id,
            "rdzv-conf": conf,
            "nnodes": "2:3",
            "nproc-per-node": "1",
        }
        words = [f"--{key}={value}" for key, value in options.items()]
        out = self._stack.enter_context((self.job.folder / f"{name}.out").open("wb")).fileno()
        words = ["-u", "-m", "torch.distributed.run", *words, _WORKER, str(self.job.folder)]
        process = (self._python.popen if warm else subprocess.Popen)(
            [sys.executable, *words],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            pass_fds=(),
            env={**os.environ, "NODE": name},
            start_new_session=True,
        )
        self._stack.callback(process.wait)
        self._stack.callback(process.kill)
        self.all[name] = process

    def members(self) -> list[str]:
        """The names of those that are there, the leader first."""
        records = self.job.records("members")
        pids = [int(decode(one.key, one.value).name.split("-")[-2]) for one in records]
        return [name for pid in pids for name, one in self.all.items() if one.pid == pid]

    def said(self, name: str) -> str:
        """What it printed."""
        return (self.job.folder / f"{name}.out").read_text(errors="replace")


@pytest.fixture
def server(own_server: Server) -> Server:
    """A server whose namespace torchrun need not be told."""
    return own_server


@pytest.fixture
def torchruns(job: Job, python_with_torch: WarmPython) -> Iterator[_Torchruns]:
    with ExitStack() as stack:
        yield _Torchruns(job, stack, python_with_torch)


@_ON_DURABLE_STORES
def test_torchrun_takes_in_a_late_node_goes_on_without_one_and_ends_nobody_by_its_end(
    torchruns: _Torchruns, server: Server
) -> None:
    job = torchruns.job
    torchruns.start("a", warm=False)
    torchruns.start("b")
    job.runs("a", "b", seconds=_SOON)
    torchruns.start("c")
    job.runs("a", "b", "c", seconds=_SOON)
    gone = torchruns.all.pop("c")
    gone.terminate()
    job.runs("a", "b", after=len(job.workers()), seconds=0.7 * _LEASE)  # it has left, and at once
    assert gone.wait(_SOON) != 0
    leader, other = torchruns.members()
    job.succeed(other)
    until("the other node leaves", lambda: torchruns.members() == [leader])
    workers = len(job.workers())
    job.succeed(leader)
    for name, process in torchruns.all.items():
        assert process.wait(_SOON) == 0, torchruns.said(name)
        assert "Error waiting on exit barrier" not in torchruns.said(name)
    assert len(job.workers()) == workers
    ((key, _, ttl),) = left_in(server)
    assert key.endswith("/log/000001.marker")
    assert ttl > 86000
    assert [len(one.seats) for one in read_history(server).assignments] == [2, 3, 2]


@_ON_DURABLE_STORES
def test_torchrun_is_told_at_once_what_is_wrong_with_its_options(torchruns: _Torchruns) -> None:
    torchruns.start("a", conf="lease_tll=3,timeout=soon")
    assert torchruns.all["a"].wait(_SOON) == 1
    assert "--rdzv-conf has 'lease_tll'" in torchruns.said("a")
    assert "has 'timeout': 'soon'; wanted a positive number of seconds" in torchruns.said("a")


@pytest.mark.parametrize("store", [SERVED_BY_A_NODE], ids=str)
def test_a_torchrun_that_serves_the_ledger_stays_until_the_others_have_ended(
    make_job: MakeJob, python_with_torch: WarmPython
) -> None:
    job = make_job(Endpoint("127.0.0.1", free_ports(1)[0]))
    with ExitStack() as stack:
        torchruns = _Torchruns(job, stack, python_with_torch)
        torchruns.start("a")
        until("the first one serves", lambda: torchruns.members() == ["a"])
        torchruns.start("b")
        job.runs("a", "b", seconds=_SOON)
        job.succeed("a")
        until("the first one has reported", lambda: job.records("reports/000001.000001"))
        job.succeed("b")
        for name, process in torchruns.all.items():
            assert process.wait(_SOON) == 0, torchruns.said(name)
            assert "Error waiting on exit barrier" not in torchruns.said(name)
