"""Passwords, tokens, permissions and certificates, on real etcd servers that require them."""

from __future__ import annotations

import http.server
import secrets
import threading
import time
import traceback
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import grpc
import pytest

from llutil.backends.endpoints import Endpoint
from llutil.ledgers import Ledger, LedgerRefused, SessionState, Watch
from llutil.ledgers.etcd.etcd3_import import etcdrpc
from tests.integration.ledgers.conftest import wait_for_reason, world_on
from tests.support.certificates import Authority, Pair
from tests.support.etcd_servers import EtcdServer, etcd, with_passwords
from tests.support.ledger_contract import World, keys, soon

pytestmark = [pytest.mark.etcd, pytest.mark.fault]

# Seconds that a token lives after its last use.
_TOKEN_TTL = 1


@pytest.fixture(scope="module")
def password_server() -> Iterator[EtcdServer]:
    """An etcd with authentication. The namespaces of its user ann begin with /ann."""
    with etcd("--auth-token-ttl", str(_TOKEN_TTL)) as server:
        with_passwords(server, {"ann": ("secret", "/ann")})
        yield server


def _ann(server: EtcdServer, *, namespace: str = "", ttl: float = 10.0) -> World:
    return world_on(
        server.endpoint,
        ttl=ttl,
        namespace=namespace or f"ann/{secrets.token_hex(4)}",
        settings={"user": "ann", "password": "secret"},
    )


def _watch_error(watch: Watch) -> str:
    try:
        watch.view()
    except LedgerRefused as error:
        return str(error)
    return ""


def test_a_user_with_the_right_password_does_everything(password_server: EtcdServer) -> None:
    with _ann(password_server).open() as world:
        one, two = world.node(), world.node()
        watch = two.ledger.watch("members/", deadline=soon())
        guard = one.join("a").record
        lease = one.session.grant_lease(60, deadline=soon())
        one.create(guard, lease, x=b"x")
        two.changes.wait_for(lambda: keys(watch.view()) == ["members/a"])
        one.session.delete("log/", guard=guard, deadline=soon())
        one.session.release(deadline=soon())
        two.changes.wait_for(lambda: not watch.view().records)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"user": "ann", "password": "guess"}, "does not know the user 'ann' with this password"),
        ({"user": "bob", "password": "secret"}, "does not know the user 'bob' with this password"),
        ({}, "etcd wants a user and a password"),
    ],
)
def test_a_wrong_login_is_refused_at_once(
    password_server: EtcdServer, settings: dict[str, str], expected: str
) -> None:
    with world_on(password_server.endpoint, namespace="ann", settings=settings).open() as world:
        ledger = world.node().ledger
        began = time.monotonic()
        with pytest.raises(LedgerRefused, match=expected) as raised:
            ledger.read("members/", deadline=soon(20))
        assert time.monotonic() - began < 15
        assert not raised.value.retryable
        assert "guess" not in str(raised.value)
        # Nor where local variables are shown, of the errors behind it too.
        told = traceback.TracebackException.from_exception(raised.value, capture_locals=True)
        shown = [line for line in told.format() if f'File "{__file__}"' not in line]
        assert "guess" not in "".join(shown)


def test_without_permission_a_call_is_refused_and_a_watch_raises_the_refusal(
    password_server: EtcdServer,
) -> None:
    with (
        _ann(password_server, namespace="others").open() as world,
        _ann(password_server).open() as mine,
    ):
        node = world.node()
        with pytest.raises(LedgerRefused, match="the user 'ann' may not do this"):
            node.ledger.read("members/", deadline=soon())
        with pytest.raises(LedgerRefused):
            node.join("a")
        since = mine.node().ledger.read("members/", deadline=soon())
        watch = node.ledger.watch("members/", since=since, deadline=soon())
        node.changes.wait_for(lambda: "permission denied" in _watch_error(watch))
        assert "watch 'members/'" in _watch_error(watch)


def test_an_expired_token_is_replaced_and_watches_and_sessions_go_on(
    password_server: EtcdServer,
) -> None:
    with _ann(password_server).open() as world:
        idle, busy = world.node(), world.node()
        old = idle.ledger.watch("members/", deadline=soon())
        busy.join("a")
        idle.changes.wait_for(lambda: keys(old.view()) == ["members/a"])
        logins = password_server.requests()["Authenticate"]
        time.sleep(2.5 * _TOKEN_TTL)
        # The stream was opened with the old token, so its next request uses that token, too.
        new = idle.ledger.watch("log/", since=old.view().only(""), deadline=soon())
        guard = busy.join("b").record
        busy.create(guard, busy.session.grant_lease(60, deadline=soon()), x=b"x")
        idle.changes.wait_for(lambda: keys(old.view()) == ["members/a", "members/b"])
        idle.changes.wait_for(lambda: keys(new.view()) == ["log/x"])
        assert busy.session.state is SessionState.CONNECTED
        assert password_server.requests()["Authenticate"] > logins


def test_a_session_that_is_over_is_lost_even_if_the_user_may_read_only_its_namespace(
    password_server: EtcdServer,
) -> None:
    with _ann(password_server, ttl=1).open() as world:
        one, two = world.node(), world.node()
        session = one.session
        two.ledger.end_lease(session.lease, deadline=soon())
        one.changes.wait_for(lambda: session.state is SessionState.LOST)


def test_a_token_that_is_older_than_the_permissions_is_replaced(tmp_path: Path) -> None:
    signer = Authority(tmp_path).issue("signer", "signer")
    tokens = f"jwt,pub-key={signer.cert},priv-key={signer.key},sign-method=ES256,ttl=10m"
    with etcd("--auth-token", tokens) as server, server.channel() as channel:
        with_passwords(server, {"ann": ("secret", "/ann")})
        with _ann(server).open() as world:
            node = world.node()
            watch = node.ledger.watch("members/", deadline=soon())
            node.join("before")
            auth = etcdrpc.AuthStub(channel)
            root = auth.Authenticate(etcdrpc.AuthenticateRequest(name="root", password="root"))
            logins = server.requests()["Authenticate"]
            new = etcdrpc.AuthRoleAddRequest(name="new")
            auth.RoleAdd(new, metadata=(("token", root.token),), timeout=5)
            node.join("after")
            assert server.requests()["Authenticate"] > logins
            log = node.ledger.watch("log/", deadline=soon())
            node.changes.wait_for(lambda: len(watch.view().records) == 2)
            assert not log.view().records


def test_a_password_does_no_harm_if_etcd_has_authentication_disabled(server: EtcdServer) -> None:
    with world_on(server.endpoint, settings={"user": "ann", "password": "secret"}).open() as world:
        world.node().join("a")


@dataclass
class TlsServers:
    """Certificates, and servers that use them."""

    ca: Authority
    other_ca: Authority
    client: Pair
    foreign_client: Pair
    """A client's certificate of another authority."""
    secure_server: EtcdServer
    """Uses TLS and requires client certificates."""
    other_host_server: EtcdServer
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
    client, foreign_client = ca.issue("client", "client"), other_ca.issue("strange", "client")
    with (
        etcd(tls=here, client_ca=ca.cert) as secure_server,
        etcd(tls=there) as other_host_server,
    ):
        yield TlsServers(ca, other_ca, client, foreign_client, secure_server, other_host_server)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_a_client_with_a_certificate_is_let_in_by_address_and_by_name(
    tls_servers: TlsServers, host: str
) -> None:
    endpoint = Endpoint(host, tls_servers.secure_server.port)
    with world_on(endpoint, settings=tls_servers.settings()).open() as world:
        node = world.node()
        watch = node.ledger.watch("members/", deadline=soon())
        node.join("a")
        node.changes.wait_for(lambda: keys(watch.view()) == ["members/a"])


def test_a_server_name_replaces_the_host_of_every_endpoint(tls_servers: TlsServers) -> None:
    endpoints = [
        Endpoint(host, tls_servers.other_host_server.port) for host in ("127.0.0.1", "localhost")
    ]
    settings = tls_servers.settings(server_name="elsewhere.example")
    for order in (endpoints, endpoints[::-1]):
        with world_on(*order, settings=settings).open() as world:
            world.node().join("a")


def _error_text(ledger: Ledger) -> str:
    """The error of a refused client. It must come soon."""
    began = time.monotonic()
    with pytest.raises(LedgerRefused) as raised:
        ledger.read("members/", deadline=soon(20))
    assert time.monotonic() - began < 15
    return str(raised.value)


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
    with world_on(
        tls_servers.secure_server.endpoint, settings=tls_servers.settings(**paths)
    ).open() as world:
        assert expected in _error_text(world.node().ledger)


def test_a_certificate_of_another_host_is_refused_with_the_reason(tls_servers: TlsServers) -> None:
    with world_on(
        tls_servers.other_host_server.endpoint, settings=tls_servers.settings()
    ).open() as world:
        text = _error_text(world.node().ledger)
        assert (
            f"127.0.0.1:{tls_servers.other_host_server.port}: its certificate is for another host"
            in text
        )


def test_plain_text_to_a_tls_server_is_explained(tls_servers: TlsServers) -> None:
    with world_on(tls_servers.secure_server.endpoint).open() as world:
        read = partial(world.node().ledger.read, "members/")
        wait_for_reason(read, "if it speaks TLS, give 'cacert'", 1)


def test_tls_to_a_plain_server_is_explained(tls_servers: TlsServers, server: EtcdServer) -> None:
    with world_on(server.endpoint, settings=tls_servers.settings()).open() as world:
        read = partial(world.node().ledger.read, "members/")
        wait_for_reason(read, "if it speaks plain text, leave out 'cacert'", 1)


@pytest.fixture
def web() -> Iterator[Endpoint]:
    """A web server, which is not an etcd."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield Endpoint("127.0.0.1", server.server_port)
        server.shutdown()
        thread.join()


def test_a_web_server_is_not_taken_for_an_etcd(tls_servers: TlsServers, web: Endpoint) -> None:
    with (
        world_on(web).open() as plain,
        world_on(web, settings=tls_servers.settings()).open() as secure_server,
    ):
        assert "what listens there is not an etcd" in _error_text(plain.node().ledger)
        assert "it does not speak TLS" in _error_text(secure_server.node().ledger)


def test_another_grpc_server_is_not_taken_for_an_etcd() -> None:
    with ThreadPoolExecutor(2) as pool:
        server = grpc.server(pool)
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        try:
            with world_on(Endpoint("127.0.0.1", port)).open() as world:
                assert "has no etcd v3 API" in _error_text(world.node().ledger)
        finally:
            server.stop(None).wait()


def test_one_wrong_endpoint_among_good_ones_does_no_harm(
    tls_servers: TlsServers, web: Endpoint
) -> None:
    endpoints = (web, tls_servers.other_host_server.endpoint, tls_servers.secure_server.endpoint)
    with world_on(*endpoints, settings=tls_servers.settings()).open() as world:
        world.node().join("a")


def test_the_repr_of_a_ledger_holds_no_secret(password_server: EtcdServer, tmp_path: Path) -> None:
    with _ann(password_server).open() as world:
        assert "secret" not in repr(world.node().ledger)
