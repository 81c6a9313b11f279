"""Jobs on a store that insists on passwords and certificates, and jobs that were told of another
server than a store.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from llutil.backends.endpoints import Endpoint
from tests.integration.rendezvous.conftest import MakeJob
from tests.support.certificates import Authority
from tests.support.etcd_servers import EtcdServer
from tests.support.stores import ANN, DURABLE_STORES, ETCD, ZOOKEEPER, Server, Store
from tests.support.zookeeper_servers import ZooKeeperServer

pytestmark = [pytest.mark.launch, pytest.mark.parametrize("store", DURABLE_STORES)]

_TOKEN = 1  # seconds that a token of etcd lives without being used
_AT_ONCE = 20.0  # seconds for a refusal, of which the agent's own start is most
_TOLD = {
    "wrong password": {
        "etcd": "does not know the user 'ann' with this password",
        "zookeeper": "the user 'ann' with this password may not do this",
    },
    "no password": {
        "etcd": "wants a user and a password",
        "zookeeper": "an anonymous client may not do this",
    },
    "no permission": {
        "etcd": "the user 'ann' may not do this",
        "zookeeper": "the user 'ann' with this password may not do this",
    },
}


@pytest.fixture(scope="module")
def guarded_etcd() -> Iterator[EtcdServer]:
    """An etcd where /ann is ann's, whose tokens are short-lived."""
    with ETCD.guarded("--auth-token-ttl", str(_TOKEN)) as server:
        yield server


@pytest.fixture(scope="module")
def guarded_zookeeper() -> Iterator[ZooKeeperServer]:
    """A ZooKeeper where /ann is ann's, and /bob is not."""
    with ZOOKEEPER.guarded() as server:
        yield server


@pytest.fixture
def guarded(store: Store, guarded_etcd: EtcdServer, guarded_zookeeper: ZooKeeperServer) -> Server:
    """A server where /ann is ann's."""
    return guarded_etcd if store is ETCD else guarded_zookeeper


@pytest.mark.parametrize(
    ("access", "case"),
    [
        (ANN | {"password": "guess"}, "wrong password"),
        ({"namespace": "ann/jobs"}, "no password"),
        (ANN | {"namespace": "bob/jobs"}, "no permission"),
    ],
    ids=list(_TOLD),
)
def test_who_may_not_use_this_store_is_told_at_once(
    make_job: MakeJob, guarded: Server, access: dict[str, str], case: str, store: Store
) -> None:
    end = make_job(guarded.endpoint, rdzv_configs=access).node("a").ends("LedgerRefused")
    assert _TOLD[case][store.name] in end["text"]
    assert end["seconds"] < _AT_ONCE
    assert not end["retryable"]
    assert "guess" not in str(end)


def test_a_job_of_a_user_goes_on_for_longer_than_a_token_lives(
    make_job: MakeJob, guarded: Server, store: Store
) -> None:
    size = {"min_nodes": 2, "max_nodes": 3}
    job = make_job(guarded.endpoint, rdzv_configs=ANN, **size)
    wait = (
        3 * _TOKEN if store is ETCD else 0
    )  # nothing tells when a token has run out but the clock
    job.node("a")
    time.sleep(wait)
    job.node("b")
    job.runs("a", "b")
    time.sleep(wait)
    job.node("c")
    job.runs("a", "b", "c")
    job.succeed()
    for agent in job.agents:
        agent.ends()
    warnings = [line for line in job.told().splitlines() if " WARNING " in line]
    assert [line for line in warnings if "without TLS" not in line] == []
    assert len(warnings) == len(job.agents)  # of the password, by each once


def test_certificates_let_in_who_has_the_right_ones(
    make_job: MakeJob, tmp_path: Path, store: Store
) -> None:
    authority = Authority(tmp_path)
    ours, theirs = authority.issue("node", "node"), Authority(tmp_path, "other").cert
    pair = {"cert": str(ours.cert), "key": str(ours.key)}
    files = {"cacert": str(authority.cert), **pair}
    right = authority.issue("server", "127.0.0.1")
    with store.start(tls=right, client_ca=authority.cert) as server:
        job = make_job(server.endpoint, rdzv_configs=files, min_nodes=2, max_nodes=2)
        for name in "ab":
            job.node(name)
        job.runs("a", "b")
        job.succeed()
        for agent in job.agents:
            agent.ends()
        _refused(make_job, server.endpoint, "client certificate", cacert=files["cacert"])
        _refused(
            make_job, server.endpoint, "was not signed by the CA", **pair | {"cacert": str(theirs)}
        )
    with store.start(tls=authority.issue("elsewhere", "elsewhere.example")) as server:
        _refused(make_job, server.endpoint, "certificate is for another host", **files)


def _refused(make_job: MakeJob, endpoint: Endpoint, told: str, **access: str) -> None:
    end = make_job(endpoint, rdzv_configs=access).node("a").ends("LedgerRefused")
    assert told in end["text"]
    assert end["seconds"] < _AT_ONCE


def test_a_certificate_without_its_key_is_refused_before_anything_is_sent(
    make_job: MakeJob, tmp_path: Path
) -> None:
    pair = Authority(tmp_path).issue("node", "node")
    job = make_job(Endpoint("127.0.0.1", 1), rdzv_configs={"cert": str(pair.cert)})
    text = job.node("a").ends("ConfigError")["text"]
    assert "has no key" in text
    assert "cacert is missing" in text


@pytest.mark.parametrize("other", ["another store", "nobody"])
def test_a_server_that_is_no_store_of_this_kind_is_named_with_what_it_did(
    make_job: MakeJob,
    guarded_etcd: EtcdServer,
    guarded_zookeeper: ZooKeeperServer,
    store: Store,
    other: str,
) -> None:
    """A silent one is given up when the time is over, since it may be a store that is frozen."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        if other == "nobody":
            endpoint = Endpoint("127.0.0.1", silent.getsockname()[1])
            kind, told = "RendezvousError", "the ledger did not answer for 3 s, and never has"
        else:
            stranger = guarded_zookeeper if store is ETCD else guarded_etcd
            endpoint = stranger.endpoint
            kind, told = {
                "etcd": ("RendezvousError", "it closed the connection"),  # as ZooKeeper does
                "zookeeper": ("LedgerRefused", "what listens there is not a ZooKeeper"),
            }[store.name]
        end = make_job(endpoint, rdzv_configs={"timeout": 3}).node("a").ends(kind)
    assert told in end["text"]
    assert str(endpoint) in end["text"]
