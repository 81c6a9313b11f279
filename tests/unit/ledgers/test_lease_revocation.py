"""A will is plain JSON of this room's, and shows nobody its password."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import llutil
from llutil.errors import ConfigError, RendezvousError
from llutil.ledgers.endpoints import Endpoint, parse_endpoints
from llutil.ledgers.etcd import http_revocation
from llutil.ledgers.etcd.config import EtcdConfig
from llutil.ledgers.lease_revocation import LeaseRevocation
from tests.support.ports import free_ports

HERE = parse_endpoints("127.0.0.1:2379,[::1]:2379")
ANN = EtcdConfig(endpoints=HERE, user="ann", password="open sesame")


def test_a_will_survives_its_way_through_a_pipe() -> None:
    will = http_revocation.will(ANN, 7587872654321)
    assert LeaseRevocation.from_json(json.loads(json.dumps(will.to_json()))) == will
    assert will.argument["lease"] == "7587872654321"
    assert will.argument["endpoints"] == "127.0.0.1:2379,[::1]:2379"
    assert will.argument["password"] == "open sesame"


def test_a_will_is_not_shown_with_its_password() -> None:
    will = http_revocation.will(ANN, 1)
    assert "open sesame" not in f"{will} {will!r}"
    assert "llutil.ledgers.etcd.http_revocation" in repr(will)


def test_wills_of_other_leases_are_others() -> None:
    assert (
        http_revocation.will(ANN, 1) == http_revocation.will(ANN, 1) != http_revocation.will(ANN, 2)
    )


def test_files_are_named_so_that_they_are_found_from_any_folder() -> None:
    config = EtcdConfig(endpoints=HERE, cacert="ca.pem", cert="a.pem", key="/b.pem")
    argument = http_revocation.will(config, 1).argument
    assert argument["cacert"] == str(Path.cwd() / "ca.pem")
    assert argument["cert"] == str(Path.cwd() / "a.pem")
    assert argument["key"] == "/b.pem"
    assert http_revocation.will(ANN, 1).argument["cacert"] == ""


@pytest.mark.parametrize("module", ["os", "llutil.agent.guardian.client", "llutil.ledgersx", ""])
def test_no_module_but_this_rooms_can_be_named(module: str) -> None:
    with pytest.raises(ConfigError, match=r"wanted one of llutil\.ledgers\.\*"):
        LeaseRevocation(module, {})


def test_every_endpoint_is_tried_and_named_when_none_helps() -> None:
    ports = free_ports(2)
    config = EtcdConfig(endpoints=tuple(Endpoint("127.0.0.1", port) for port in ports))
    with pytest.raises(RendezvousError, match="will expire") as raised:
        http_revocation.will(config, 1).prepare()()
    assert all(f"127.0.0.1:{port}: " in str(raised.value) for port in ports)


def test_carrying_out_a_will_needs_no_site_packages() -> None:
    home = str(Path(llutil.__file__).parents[1])
    code = (
        f"import sys; sys.path.append({home!r}); import llutil.agent.guardian.main; "
        "from llutil.ledgers.lease_revocation import LeaseRevocation; LeaseRevocation('llutil.ledgers.etcd.http_revocation', {}).prepare(); "
        "sys.exit(str(sorted({'site', 'grpc', 'etcd3', 'tenacity', 'torch'} & set(sys.modules)) or ''))"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code],
        check=False,
        env=dict(os.environ),
        capture_output=True,
    )
    assert (done.returncode, done.stderr) == (1, b"\n")
