"""A lease revocation is plain JSON, names modules of ``llutil.ledgers`` only, and hides
passwords.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import llutil
from llutil.backends.endpoints import Endpoint, parse_endpoints
from llutil.errors import ConfigError, RendezvousError
from llutil.ledgers.etcd import http_revocation
from llutil.ledgers.etcd.config import EtcdConfig
from llutil.ledgers.lease_revocation import LeaseRevocation
from tests.support.ports import free_ports

HERE = parse_endpoints("127.0.0.1:2379,[::1]:2379")
ANN = EtcdConfig(endpoints=HERE, user="ann", password="open sesame")


def test_a_revocation_is_unchanged_after_json() -> None:
    revocation = http_revocation.revocation(ANN, 7587872654321)
    assert LeaseRevocation.from_json(json.loads(json.dumps(revocation.to_json()))) == revocation
    assert revocation.argument["lease"] == "7587872654321"
    assert revocation.argument["endpoints"] == "127.0.0.1:2379,[::1]:2379"
    assert revocation.argument["password"] == "open sesame"


def test_a_revocation_is_shown_without_its_password() -> None:
    revocation = http_revocation.revocation(ANN, 1)
    assert "open sesame" not in f"{revocation} {revocation!r}"
    assert "llutil.ledgers.etcd.http_revocation" in repr(revocation)


def test_revocations_of_different_leases_are_unequal() -> None:
    assert (
        http_revocation.revocation(ANN, 1)
        == http_revocation.revocation(ANN, 1)
        != http_revocation.revocation(ANN, 2)
    )


def test_file_paths_are_absolute() -> None:
    config = EtcdConfig(endpoints=HERE, cacert="ca.pem", cert="a.pem", key="/b.pem")
    argument = http_revocation.revocation(config, 1).argument
    assert argument["cacert"] == str(Path.cwd() / "ca.pem")
    assert argument["cert"] == str(Path.cwd() / "a.pem")
    assert argument["key"] == "/b.pem"
    assert http_revocation.revocation(ANN, 1).argument["cacert"] == ""


@pytest.mark.parametrize("module", ["os", "llutil.agent.guardian.client", "llutil.ledgersx", ""])
def test_modules_outside_llutil_ledgers_are_refused(module: str) -> None:
    with pytest.raises(ConfigError, match=r"wanted one of llutil\.ledgers\.\*"):
        LeaseRevocation(module, {})


def test_every_endpoint_is_tried_and_named_when_all_fail() -> None:
    ports = free_ports(2)
    config = EtcdConfig(endpoints=tuple(Endpoint("127.0.0.1", port) for port in ports))
    with pytest.raises(RendezvousError, match="will expire") as raised:
        http_revocation.revocation(config, 1).prepare()()
    assert all(f"127.0.0.1:{port}: " in str(raised.value) for port in ports)


def test_a_revocation_needs_no_site_packages() -> None:
    home = str(Path(llutil.__file__).parents[1])
    code = (
        f"import sys; sys.path.append({home!r}); import llutil.agent.guardian.main; "
        "from llutil.ledgers.lease_revocation import LeaseRevocation; "
        "LeaseRevocation('llutil.ledgers.etcd.http_revocation', {}).prepare(); "
        "unwanted = {'site', 'grpc', 'etcd3', 'tenacity', 'torch'} & set(sys.modules); "
        "sys.exit(str(sorted(unwanted) or ''))"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code],
        check=False,
        env=dict(os.environ),
        capture_output=True,
    )
    assert (done.returncode, done.stderr) == (1, b"\n")
