"""What only a ZooKeeper has: chroots, the part of it that is a deployment's own, and passwords by
SASL.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from llutil.rendezvous.protocol.record_keys import RecordKeys
from tests.integration.rendezvous.conftest import MakeJob
from tests.integration.rendezvous.jobs import Job
from tests.support.stores import DURABLE_STORES, ZOOKEEPER
from tests.support.zookeeper_servers import ZooKeeperServer, client

pytestmark = [pytest.mark.launch, pytest.mark.parametrize("store", DURABLE_STORES[1:])]

_AT_ONCE = 20.0  # seconds for a refusal, of which the agent's own start is most


@pytest.fixture(scope="module")
def server() -> Iterator[ZooKeeperServer]:
    """A ZooKeeper where /bob is bob's, and which knows ann by SASL too."""
    with ZOOKEEPER.guarded(users={"ann": "secret"}) as server:
        yield server


def _job(make_job: MakeJob, server: ZooKeeperServer, chroot: str) -> Job:
    return make_job(server.endpoint, rdzv_endpoint=f"{server.endpoint}{chroot}")


def test_a_job_stays_in_its_chroot(make_job: MakeJob, server: ZooKeeperServer) -> None:
    with client(server) as other:
        other.create("/sites/blue", makepath=True)
        before = set(other.get_children("/"))
        job = _job(make_job, server, "/sites/blue")
        for name in "ab":
            job.node(name, min_nodes=2, max_nodes=2)
        job.runs("a", "b")
        assert other.get_children("/sites/blue") == ["llutil"]
        job.succeed()
        for agent in job.agents:
            agent.ends()
        assert set(other.get_children("/")) == before


@pytest.mark.parametrize("chroot", ["/not/there", "/bob"])
def test_one_that_is_not_there_or_somebody_elses_is_refused_and_not_touched(
    make_job: MakeJob, server: ZooKeeperServer, chroot: str
) -> None:
    end = _job(make_job, server, chroot).node("a").ends("LedgerRefused")
    told = {
        "/not/there": "has no chroot '/not/there'",
        "/bob": "an anonymous client may not do this",
    }
    assert told[chroot] in end["text"]
    assert end["seconds"] < _AT_ONCE
    with client(server) as other:
        assert other.exists("/not") is None
        assert other.exists("/bob").numChildren == 0


def test_other_data_on_the_path_of_a_job_is_named_and_not_touched(
    make_job: MakeJob, server: ZooKeeperServer
) -> None:
    with client(server) as other:
        other.create("/data")
        folder = f"/data/llutil/-/{RecordKeys('job').root}log"
        other.create(f"{folder}/=000001.marker", b"theirs", makepath=True)
        job = _job(make_job, server, "/data")
        job.succeed()
        agent = job.node("a")
        agent.ends()
        assert agent.told.count("000001.marker' in the ledger is ignored: ") == 1
        assert other.get(f"{folder}/=000001.marker")[0] == b"theirs"
        assert sorted(other.get_children(folder)) == ["=000001.marker", "=000001.marker+1"]


def test_a_job_of_a_user_of_sasl_runs_and_a_wrong_password_is_refused(
    make_job: MakeJob, server: ZooKeeperServer
) -> None:
    access = {"user": "ann", "password": "secret", "sasl_mechanism": "DIGEST-MD5"}
    job = make_job(server.endpoint, rdzv_configs={**access, "namespace": "by/sasl"})
    for name in "ab":
        job.node(name, min_nodes=2, max_nodes=2)
    wrong = job.node("c", rdzv_configs={"password": "guess"})
    job.runs("a", "b")
    end = wrong.ends("LedgerRefused")
    assert "does not accept the authentication of the user 'ann' with this password" in end["text"]
    assert not end["retryable"]
    job.succeed()
    for agent in job.agents[:2]:
        agent.ends()
