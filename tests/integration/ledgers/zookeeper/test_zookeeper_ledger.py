"""The ledger on a real ZooKeeper: what it has beyond the contract of all ledgers."""

from __future__ import annotations

import subprocess
import sys

import pytest

from llutil.errors import ConfigError
from llutil.ledgers import LeaseGone, SessionState
from llutil.ledgers.lease_revocation import LeaseRevocation
from llutil.ledgers.zookeeper import lease_znodes, session_handshake, watches
from tests.support.ledger_contract import DAY, World, soon, wait_until
from tests.support.stores import ZOOKEEPER, Store
from tests.support.zookeeper_servers import ZooKeeperServer, client

pytestmark = pytest.mark.zookeeper


@pytest.fixture
def store() -> Store:
    return ZOOKEEPER


def test_a_later_job_sweeps_an_expired_lease_and_its_records_by_the_servers_clock(
    server: ZooKeeperServer, world: World
) -> None:
    old, new = world.node(), world.node()
    guard = old.join("a", folder="run.x/members/").record
    lease = old.session.grant_lease(0.3, deadline=soon())
    long = old.session.grant_lease(DAY, deadline=soon())
    one, two = {"run.x/log/marker": b"m"}, {"run.y/log/marker": b"m"}
    old.session.create(one, guard=guard, lease=lease, deadline=soon())
    old.session.create(two, guard=guard, lease=long, deadline=soon())
    old.session.release(deadline=soon())

    def swept() -> bool:
        new.session.grant_lease(DAY, deadline=soon())
        return not new.read("run.x/log/")

    wait_until(swept)
    assert new.read("run.y/log/") == {"run.y/log/marker": b"m"}
    with pytest.raises(LeaseGone):
        new.session.keep_alive(lease, deadline=soon())
    with client(server) as other:
        root = f"/{world.namespace}/-"
        wait_until(lambda: other.exists(f"{root}/run.x") is None)
        assert other.exists(f"{root}/run.y/log/=marker")


def test_an_empty_folder_is_swept_once_it_is_old_by_the_servers_clock(
    server: ZooKeeperServer, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = world.node(), world.node()
    old.join("a", folder="run.x/members/")
    old.session.release(deadline=soon())
    new.join("b", folder="run.y/members/")
    root = f"/{world.namespace}/-"
    with client(server) as other:
        monkeypatch.setattr(lease_znodes, "_YOUNG_FOLDER", 50)

        def swept() -> bool:
            new.session.grant_lease(DAY, deadline=soon())
            return other.exists(f"{root}/run.x") is None

        wait_until(swept)
        assert other.exists(f"{root}/run.y/members")


def test_a_revocation_ends_the_session_of_a_node_that_was_killed(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session_handshake, "_ENDPOINT_TIMEOUT", 30.0)  # no machine is too slow
    one, two = world.node(), world.node()
    one.join("a")
    revocation = one.session.revocation
    assert revocation is not None
    LeaseRevocation.from_json(revocation.to_json()).prepare()()
    assert two.read("members/") == {}
    one.changes.wait_for(lambda: one.session.state is SessionState.LOST)


def test_a_revocation_needs_no_package_but_our_own() -> None:
    code = (
        "from llutil.ledgers.zookeeper.session_handshake import perform; import sys; "
        "print('kazoo' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-S", "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.stdout, done.stderr) == ("False\n", "")


def test_a_ttl_that_the_server_does_not_grant_is_refused_with_the_one_that_it_grants(
    world: World,
) -> None:
    with pytest.raises(ConfigError, match=r"lease_ttl is 0\.1 s, but .* grants 0\.4 s"):
        world.node().ledger.open_session(0.1, deadline=soon())


def test_a_znode_of_other_software_belongs_to_no_lease_and_is_not_changed(
    server: ZooKeeperServer, world: World
) -> None:
    node = world.node()
    guard = node.join("a").record
    root = f"/{world.namespace}/-"
    with client(server) as other:
        other.create(f"{root}/log/=seal", b'{"theirs": 1}', makepath=True)
        other.create(f"{root}/members/note", b"theirs")
        other.create(f"{root}/members/@b:00000a3b4c5d6e7f:", b"theirs", sequence=True)
        found = node.ledger.read("log/", deadline=soon()).records
        assert [(one.key, one.value, one.lease) for one in found] == [
            ("log/seal", b'{"theirs": 1}', "")
        ]
        found = node.ledger.read("members/", deadline=soon()).records
        assert [(one.key, bool(one.lease)) for one in found] == [
            ("members/a", True),
            ("members/b", False),
        ]
        node.session.delete("other/", "members/note", guard=guard, deadline=soon())
        assert other.get(f"{root}/log/=seal")[0] == b'{"theirs": 1}'
        assert other.get(f"{root}/members/note")[0] == b"theirs"


def test_a_lost_notice_only_delays_a_watch(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """etcd needs no such test: it numbers its events, so a lost one is noticed."""
    monkeypatch.setattr(watches, "_REREAD_PERIOD", 0.2)
    monkeypatch.setattr(watches._WatchState, "wake", lambda *_: None)
    node = world.node()
    watch = node.ledger.watch("log/", deadline=soon())
    own = node.join("a").record
    node.create(own, node.session.grant_lease(60.0, deadline=soon()), a=b"1")
    wait_until(lambda: [record.key for record in watch.view().records] == ["log/a"])
