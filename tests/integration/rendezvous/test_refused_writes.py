"""What becomes of jobs when etcd has no space left (it renews and reads, and takes no writes), or
does not let them in any more.
"""

from __future__ import annotations

from collections.abc import Iterator

import grpc
import pytest

from llutil.ledgers.etcd.etcd3_import import etcdrpc
from llutil.ledgers.keys import Namespace
from llutil.rendezvous.protocol.record_keys import RecordKeys
from tests.integration.rendezvous.conftest import MakeJob
from tests.integration.rendezvous.jobs import Agent, Job, kept_values
from tests.support.etcd_servers import EtcdServer, etcd, with_passwords

pytestmark = [pytest.mark.launch, pytest.mark.fault, pytest.mark.etcd]

_TIMEOUT = 4


@pytest.fixture
def small_etcd() -> Iterator[EtcdServer]:
    """An etcd that holds half a megabyte."""
    with etcd("--quota-backend-bytes", str(1 << 19)) as server:
        yield server


def _put_strays(server: EtcdServer, run_id: str) -> None:
    """Write among the records of a run, as another program does."""
    keys = RecordKeys(run_id)
    strays = (keys.members + "web-1", keys.log + "notes", keys.log + "000001.000001.verdict")
    with server.channel() as channel:
        for key in strays:
            path = Namespace("llutil").outside(key).encode()
            request = etcdrpc.PutRequest(key=path, value=b'{"name":"web-1","ready":true}')
            etcdrpc.KVStub(channel).Put(request, timeout=5)


def _fill(server: EtcdServer) -> None:
    """Write until etcd raises its alarm."""
    with server.channel() as channel:
        put = etcdrpc.KVStub(channel).Put
        with pytest.raises(grpc.RpcError, match="database space exceeded"):  # noqa: PT012 - any put
            for number in range(1000):
                put(etcdrpc.PutRequest(key=b"big%d" % number, value=bytes(1 << 16)), timeout=5)


def test_jobs_end_in_time_with_what_their_nodes_know(
    make_job: MakeJob, small_etcd: EtcdServer
) -> None:
    """Three jobs at the same time: a node alone, two nodes that succeed, and one that fails. What
    others have written among their records does not matter.
    """

    def start(run_id: str, nodes: str) -> list[Agent]:
        size = {"min_nodes": len(nodes), "max_nodes": len(nodes), "max_restarts": 0}
        limits = {"rdzv_configs": {"timeout": _TIMEOUT}}
        job = make_job(small_etcd.endpoint, run_id=run_id, **limits, **size)
        agents = [job.node(name, function=True) for name in nodes]
        job.runs(*nodes)
        _put_strays(small_etcd, run_id)
        jobs.append(job)
        return agents

    jobs: list[Job] = []
    (alone,), pair, (failing,) = start("one", "a"), start("two", "ab"), start("bad", "c")
    _fill(small_etcd)
    for job in jobs[:2]:
        job.succeed()
    jobs[2].fail("c")
    assert alone.ends()["values"] == {"0": {"answer": 42}}
    assert "a node that comes later does not know it" in alone.told
    assert alone.told.count("members/web-1' in the ledger is ignored: it ") == 1
    no_write = f"took nothing that was written for {_TIMEOUT} s"
    kept = {}
    for agent in pair:
        text = agent.ends("RendezvousError")["text"]
        assert no_write in text
        assert "database space exceeded" in text
        kept |= kept_values(agent)
        assert agent.told.count("was not applied before: was not applied before") == 0
        assert agent.told.count("Create: ") < 10
    assert kept == {f"rank_{rank}.pickle": {"answer": 42} for rank in range(2)}
    told = failing.ends("WorkersFailed")["text"]
    assert "ValueError: no such digit: 1" in told
    assert no_write in told


def test_nodes_that_are_not_let_in_any_more_tell_what_they_know(make_job: MakeJob) -> None:
    access = {"user": "ann", "password": "secret", "namespace": "ann/jobs"}
    with etcd() as server:
        with_passwords(server, {"ann": ("secret", "/ann/")})
        job = make_job(server.endpoint, rdzv_configs=access, min_nodes=2, max_nodes=2)
        failing, succeeding = (job.node(name, function=True) for name in "ab")
        job.runs("a", "b")
        with server.channel() as channel:
            auth = etcdrpc.AuthStub(channel)
            root = etcdrpc.AuthenticateRequest(name="root", password="root")
            token = auth.Authenticate(root, timeout=5).token
            request = etcdrpc.AuthUserDeleteRequest(name="ann")
            auth.UserDelete(request, timeout=5, metadata=[("token", token)])
        job.fail("a")
        job.succeed("b")
        told = failing.ends("WorkersFailed")["text"]
        assert "ValueError: no such digit: 1" in told
        assert "besides, " in told
        assert "does not know the user 'ann'" in told
        assert [*kept_values(succeeding, "LedgerRefused").values()] == [{"answer": 42}]
