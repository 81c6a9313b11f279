"""Who may use a ZooKeeper, and which errors others get: digest and SASL passwords, certificates,
chroots, servers that are not a ZooKeeper.
"""

from __future__ import annotations

import http.server
import secrets
import socket
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest
from kazoo.security import make_digest_acl

from llutil.backends.endpoints import Endpoint
from llutil.errors import ConfigError
from llutil.ledgers import Ledger, LedgerRefused, View
from llutil.ledgers.lease_revocation import LeaseRevocation
from llutil.ledgers.zookeeper import session_handshake
from llutil.ledgers.zookeeper.config import ZooKeeperConfig
from llutil.ledgers.zookeeper.ledger import ZooKeeperLedger
from tests.integration.ledgers.conftest import wait_for_reason
from tests.support.certificates import Authority, Pair
from tests.support.etcd_servers import EtcdServer
from tests.support.ledger_contract import DAY, World, keys, soon
from tests.support.stores import ZOOKEEPER, Store
from tests.support.zookeeper_servers import ZooKeeperServer, client, zookeeper, zookeeper_of

pytestmark = [pytest.mark.zookeeper, pytest.mark.fault]

# Seconds. kazoo uses most of it for each attempt to connect.
_TTL = 3.0
_SASL = {"user": "ann", "password": "secret", "sasl_mechanism": "DIGEST-MD5"}


@pytest.fixture
def store() -> Store:
    return ZOOKEEPER


def _does_everything(world: World) -> None:
    """All that a leader and a follower do with a ledger."""
    one, two = world.node(), world.node()
    watch = two.ledger.watch("members/", deadline=soon())
    guard = one.join("a").record
    one.create(guard, one.session.grant_lease(DAY, deadline=soon()), x=b"x")
    two.changes.wait_for(lambda: keys(watch.view()) == ["members/a"])
    assert two.read("log/") == {"log/x": b"x"}
    one.session.delete("log/", guard=guard, deadline=soon())
    revocation = one.session.revocation
    assert revocation is not None
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(session_handshake, "_ENDPOINT_TIMEOUT", 30.0)  # no machine is too slow
        LeaseRevocation.from_json(revocation.to_json()).prepare()()
    two.changes.wait_for(lambda: not watch.view().records)


def _error_text(act: Callable[[], object]) -> str:
    """The error of a call that is not allowed. It comes soon, and without the password."""
    began = time.monotonic()
    with pytest.raises(LedgerRefused) as caught:
        act()
    assert time.monotonic() - began < 15
    assert not caught.value.retryable
    assert "guess" not in str(caught.value)
    told = traceback.TracebackException.from_exception(caught.value, capture_locals=True)
    shown = [line for line in told.format() if f'File "{__file__}"' not in line]
    assert "guess" not in "".join(shown)
    return str(caught.value)


def _open(world: World) -> Callable[[], object]:
    """A call that opens a session."""
    return partial(_opener(world), deadline=soon(20))


def _opener(world: World) -> Callable[..., object]:
    """The same, whose deadline is to be given."""
    return partial(world.node().ledger.open_session, _TTL)


# -- digest authentication


def test_another_password_or_none_may_not_use_the_znodes_of_a_user(server: ZooKeeperServer) -> None:
    right, wrong = {"user": "ann", "password": "secret"}, {"user": "ann", "password": "guess"}
    namespace = f"of/{secrets.token_hex(4)}"
    with ZOOKEEPER.world(server.endpoint, namespace=namespace, settings=right).open() as world:
        _does_everything(world)
        world.node().join("b")
        for access, who in (
            (wrong, "the user 'ann' with this password"),
            ({}, "an anonymous client"),
        ):
            others = ZOOKEEPER.world(server.endpoint, namespace=namespace, settings=access)
            with others.open():
                node = others.node()
                assert f"{who} may not do this" in _error_text(partial(node.join, "c"))
                read = partial(node.ledger.read, "members/", deadline=soon(20))
                assert f"{who} may not do this" in _error_text(read)
        assert list(world.node().read("members/")) == ["members/b"]


def test_without_permission_a_watch_raises_the_refusal(server: ZooKeeperServer) -> None:
    with client(server) as other:
        other.create("/theirs/-", makepath=True)
        other.create("/theirs/-/log", acl=[make_digest_acl("bob", "another", all=True)])
    with ZOOKEEPER.world(server.endpoint, namespace="theirs").open() as world:
        node = world.node()
        watch = node.ledger.watch("log/", since=View((), 0), deadline=soon())

        def refused() -> bool:
            try:
                watch.view()
            except LedgerRefused as error:
                return "watch 'log/'" in str(error) and "may not do this" in str(error)
            return False

        node.changes.wait_for(refused)


# -- a chroot for each deployment


def test_deployments_with_different_chroots_never_see_each_other(server: ZooKeeperServer) -> None:
    with client(server) as other:
        for name in ("blue", "green"):
            other.create(f"/sites/{name}", makepath=True)
    blue, green = (_at(server, f"/sites/{name}") for name in ("blue", "green"))
    with blue.open(), green.open():
        _does_everything(blue)
        assert keys(blue.node().join("a").members) == ["members/a"]
        assert green.node().read("members/") == {}
        assert keys(green.node().join("b").members) == ["members/b"]


def _at(server: ZooKeeperServer, chroot: str) -> World:
    def ledger(namespace: str, on_change: Callable[[], None]) -> Ledger:
        endpoint = f"{server.endpoint}{chroot}"
        return ZooKeeperLedger(ZooKeeperConfig.at(endpoint, namespace=namespace), on_change)

    return World(ledger)


def test_a_chroot_that_does_not_exist_is_refused_and_not_created(server: ZooKeeperServer) -> None:
    with _at(server, "/not/there").open() as world:
        text = _error_text(_open(world))
        assert "has no chroot '/not/there'" in text
    with client(server) as other:
        assert other.exists("/not") is None


def test_a_chroot_of_another_user_is_refused(server: ZooKeeperServer) -> None:
    zookeeper_of(server, {"carl": "another"})
    with _at(server, "/carl").open() as world:
        node = world.node()
        assert "an anonymous client may not do this" in _error_text(lambda: node.join("a"))
    with client(server) as other:
        assert other.exists("/carl").numChildren == 0


# -- SASL


@pytest.fixture(scope="module")
def sasl() -> Iterator[ZooKeeperServer]:
    """A ZooKeeper with the user ann, by SASL."""
    with zookeeper(users={"ann": "secret"}) as server:
        yield server


def test_a_sasl_user_does_everything_and_owns_the_znodes(sasl: ZooKeeperServer) -> None:
    with ZOOKEEPER.world(sasl.endpoint, namespace="of/ann", settings=_SASL).open() as world:
        _does_everything(world)
    digest = {"user": "ann", "password": "secret"}  # the same user, but not by SASL
    with ZOOKEEPER.world(sasl.endpoint, namespace="of/ann", settings=digest).open() as world:
        node = world.node()
        assert "may not do this" in _error_text(lambda: node.join("a"))


@pytest.mark.parametrize("use", ["open_session", "read"])
def test_a_wrong_sasl_password_is_refused(sasl: ZooKeeperServer, use: str) -> None:
    with ZOOKEEPER.world(sasl.endpoint, settings=_SASL | {"password": "guess"}).open() as world:
        ledger = world.node().ledger
        acts = {
            "open_session": lambda: ledger.open_session(_TTL, deadline=soon(20)),
            "read": lambda: ledger.read("log/", deadline=soon(20)),
        }
        text = _error_text(acts[use])
        assert "does not accept the authentication of the user 'ann' with this password" in text


def test_sasl_is_refused_by_a_server_without_it(server: ZooKeeperServer) -> None:
    with ZOOKEEPER.world(server.endpoint, settings=_SASL).open() as world:
        text = _error_text(_open(world))
        assert "does not accept the authentication" in text


def test_an_unknown_sasl_mechanism_is_refused_before_anything_is_sent() -> None:
    settings = _SASL | {"sasl_mechanism": "RUMOUR"}
    world = ZOOKEEPER.world(Endpoint("127.0.0.1", 1), settings=settings)
    with pytest.raises(ConfigError, match=r"sasl_mechanism is 'RUMOUR'; pure-sasl knows .*DIGEST"):
        world.node()


# -- TLS


@dataclass
class TlsServers:
    """Certificates, and servers that use them."""

    ca: Authority
    client: Pair
    secure_server: ZooKeeperServer
    """Uses TLS, requires client certificates, and has the user ann by SASL."""
    other_host_server: ZooKeeperServer
    """Uses TLS; its certificate is for another host."""

    def settings(self, **changes: str) -> dict[str, str]:
        """A client's settings. ``changes`` replace some of them; an empty value removes one."""
        settings = {
            "cacert": str(self.ca.cert),
            "cert": str(self.client.cert),
            "key": str(self.client.key),
        }
        return {name: value for name, value in {**settings, **changes}.items() if value}


@pytest.fixture(scope="module")
def tls_servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TlsServers]:
    folder = tmp_path_factory.mktemp("certificates")
    ca, other_ca = Authority(folder), Authority(folder, "other")
    here = ca.issue("here", "127.0.0.1", "localhost")
    there = ca.issue("there", "elsewhere.example")
    other_ca.issue("strange", "client")
    with (
        zookeeper(tls=here, client_ca=ca.cert, users={"ann": "secret"}) as secure_server,
        zookeeper(tls=there) as other_host_server,
    ):
        yield TlsServers(ca, ca.issue("client", "client"), secure_server, other_host_server)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_a_client_with_a_certificate_is_let_in_by_address_and_by_name(
    tls_servers: TlsServers, host: str
) -> None:
    endpoint = Endpoint(host, tls_servers.secure_server.port)
    with ZOOKEEPER.world(endpoint, settings=tls_servers.settings()).open() as world:
        _does_everything(world)


def test_passwords_and_certificates_go_together(tls_servers: TlsServers) -> None:
    settings = tls_servers.settings(**_SASL)
    with ZOOKEEPER.world(tls_servers.secure_server.endpoint, settings=settings).open() as world:
        _does_everything(world)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"cert": "", "key": ""}, "it wants a client certificate"),
        ({"cert": "strange.crt", "key": "strange.key"}, "it wants a client certificate"),
        ({"cacert": "other.crt"}, "its certificate was not signed by the CA in 'cacert'"),
    ],
)
def test_the_wrong_certificate_is_refused_with_the_reason(
    tls_servers: TlsServers, changes: dict[str, str], expected: str
) -> None:
    folder = tls_servers.ca.cert.parent
    paths = {name: str(folder / file) if file else "" for name, file in changes.items()}
    settings = tls_servers.settings(**paths)
    with ZOOKEEPER.world(tls_servers.secure_server.endpoint, settings=settings).open() as world:
        assert expected in _error_text(_open(world))


def test_a_certificate_of_another_host_is_refused_with_the_reason(tls_servers: TlsServers) -> None:
    endpoint = tls_servers.other_host_server.endpoint
    with ZOOKEEPER.world(endpoint, settings=tls_servers.settings()).open() as world:
        text = _error_text(_open(world))
        assert f"{endpoint}: its certificate is for another host" in text


def test_plain_text_to_a_tls_server_is_explained(tls_servers: TlsServers) -> None:
    with ZOOKEEPER.world(tls_servers.secure_server.endpoint).open() as world:
        wait_for_reason(_opener(world), "if it speaks TLS, give 'cacert'", 1)


def test_tls_to_a_plain_server_is_explained(
    tls_servers: TlsServers, server: ZooKeeperServer
) -> None:
    with ZOOKEEPER.world(server.endpoint, settings=tls_servers.settings()).open() as world:
        wait_for_reason(_opener(world), "if it speaks plain text, leave out 'cacert'", 1)


def test_missing_files_are_refused_before_anything_is_sent(tmp_path: Path) -> None:
    world = ZOOKEEPER.world(Endpoint("127.0.0.1", 1), settings={"cacert": str(tmp_path / "ca")})
    with pytest.raises(ConfigError, match=r"cacert .* cannot be read: No such file"):
        world.node()


# -- servers that speak something else


@pytest.fixture
def web() -> Iterator[Endpoint]:
    """A web server."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    class Server(http.server.ThreadingHTTPServer):
        def handle_error(self, *_: object) -> None:
            pass  # a client that closes the connection early is no error

    with Server(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield Endpoint("127.0.0.1", server.server_port)
        server.shutdown()
        thread.join()


def test_a_web_server_is_not_taken_for_a_zookeeper(tls_servers: TlsServers, web: Endpoint) -> None:
    for settings, expected in (
        ({}, "what listens there is not a ZooKeeper"),
        (tls_servers.settings(), "it does not speak TLS"),
    ):
        with ZOOKEEPER.world(web, settings=settings).open() as world:
            assert expected in _error_text(_open(world))


def test_an_etcd_is_not_taken_for_a_zookeeper(shared_etcd: EtcdServer) -> None:
    with ZOOKEEPER.world(shared_etcd.endpoint).open() as world:
        text = _error_text(_open(world))
        assert "what listens there is not a ZooKeeper; correct the host and port" in text


def test_a_server_that_never_answers_ends_the_call_by_its_deadline() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        endpoint = Endpoint("127.0.0.1", silent.getsockname()[1])
        with ZOOKEEPER.world(endpoint).open() as world:
            wait_for_reason(_opener(world), f"{endpoint}: no answer in time", 1)


def test_one_wrong_endpoint_among_good_ones_does_no_harm(
    web: Endpoint, server: ZooKeeperServer
) -> None:
    with ZOOKEEPER.world(web, server.endpoint, ttl=_TTL).open() as world:
        world.node().join("a")


def test_the_repr_of_a_ledger_holds_no_secret(server: ZooKeeperServer) -> None:
    with ZOOKEEPER.world(server.endpoint, settings=_SASL).open() as world:
        assert "secret" not in repr(world.node().ledger)
