"""Jobs on an etcd that insists on passwords and certificates."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from llutil.ledgers.endpoints import Endpoint
from tests.certificates import Authority
from tests.integration.rendezvous.conftest import MakeJob
from tests.servers import EtcdServer, etcd, with_passwords

pytestmark = [pytest.mark.etcd, pytest.mark.launch]

_TOKEN = 1  # seconds that a token lives without being used
_ANN = {"user": "ann", "password": "secret", "namespace": "ann/jobs"}
_AT_ONCE = 20.0  # seconds for a refusal, of which the agent's own start is most


@pytest.fixture(scope="module")
def guarded() -> Iterator[EtcdServer]:
    """An etcd that wants a password, with a user ann whose namespaces begin with /ann."""
    with etcd("--auth-token-ttl", str(_TOKEN)) as server:
        with_passwords(server, {"ann": ("secret", "/ann")})
        yield server


@pytest.mark.parametrize(
    ("access", "told"),
    [
        (_ANN | {"password": "guess"}, "does not know the user 'ann' with this password"),
        ({}, "wants a user and a password"),
        (_ANN | {"namespace": "bob"}, "the user 'ann' may not do this"),
    ],
    ids=["wrong password", "no password", "no permission"],
)
def test_who_may_not_use_this_etcd_is_told_at_once(
    make_job: MakeJob, guarded: EtcdServer, access: dict[str, str], told: str
) -> None:
    end = make_job(guarded.endpoint, rdzv_configs=access).node("a").ends("LedgerRefused")
    assert told in end["text"]
    assert end["seconds"] < _AT_ONCE
    assert not end["retryable"]
    assert "guess" not in str(end)


def test_a_job_outlives_its_tokens(make_job: MakeJob, guarded: EtcdServer) -> None:
    size = {"min_nodes": 2, "max_nodes": 3}
    job = make_job(guarded.endpoint, rdzv_configs=_ANN, **size)
    job.node("a")
    time.sleep(3 * _TOKEN)  # nothing tells when a token has run out but the clock
    job.node("b")
    job.runs("a", "b")
    time.sleep(3 * _TOKEN)
    job.node("c")
    job.runs("a", "b", "c")
    job.succeed()
    for agent in job.agents:
        agent.ends()
    assert "WARNING" not in job.told()


def test_certificates_let_in_who_has_the_right_ones(make_job: MakeJob, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    ours, theirs = authority.issue("node", "node"), Authority(tmp_path, "other").cert
    pair = {"cert": str(ours.cert), "key": str(ours.key)}
    files = {"cacert": str(authority.cert), **pair}
    right = authority.issue("server", "127.0.0.1")
    with etcd(tls=right, client_ca=authority.cert) as server:
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
    with etcd(tls=authority.issue("elsewhere", "elsewhere.example")) as server:
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
    assert "without 'cacert'" in text
