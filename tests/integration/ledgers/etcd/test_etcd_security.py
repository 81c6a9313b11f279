"""Passwords, tokens, permissions and certificates against real servers that insist on them."""

from __future__ import annotations

import http.server
import secrets
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest

from llutil.backends.endpoints import Endpoint
from llutil.ledgers import Ledger, LedgerRefused, LedgerUnavailable, SessionState, Watch
from llutil.ledgers.etcd.etcd3_import import etcdrpc
from tests.integration.ledgers.conftest import world_on
from tests.support.certificates import Authority, Pair
from tests.support.etcd_servers import EtcdServer, etcd, with_passwords
from tests.support.ledger_contract import World, keys, soon

pytestmark = [pytest.mark.etcd, pytest.mark.fault]

_TOKEN = 1  # seconds that a token lives without being used


@pytest.fixture(scope="module")
def guarded() -> Iterator[EtcdServer]:
    """An etcd that wants a password, with a user ann whose namespaces begin with /ann."""
    with etcd("--auth-token-ttl", str(_TOKEN)) as server:
        with_passwords(server, {"ann": ("secret", "/ann")})
        yield server


def _ann(server: EtcdServer, *, namespace: str = "", ttl: float = 10.0) -> World:
    return world_on(
        server.endpoint,
        ttl=ttl,
        namespace=namespace or f"ann/{secrets.token_hex(4)}",
        settings={"user": "ann", "password": "secret"},
    )


def _refusal(watch: Watch) -> str:
    try:
        watch.view()
    except LedgerRefused as error:
        return str(error)
    return ""


def test_a_user_with_the_right_password_does_everything(guarded: EtcdServer) -> None:
    with _ann(guarded).open() as world:
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
    ("settings", "told"),
    [
        ({"user": "ann", "password": "guess"}, "does not know the user 'ann' with this password"),
        ({"user": "bob", "password": "secret"}, "does not know the user 'bob' with this password"),
        ({}, "etcd wants a user and a password"),
    ],
)
def test_a_wrong_login_is_refused_at_once(
    guarded: EtcdServer, settings: dict[str, str], told: str
) -> None:
    with world_on(guarded.endpoint, namespace="ann", settings=settings).open() as world:
        ledger = world.node().ledger
        began = time.monotonic()
        with pytest.raises(LedgerRefused, match=told) as raised:
            ledger.read("members/", deadline=soon(20))
        assert time.monotonic() - began < 5
        assert not raised.value.retryable
        assert "guess" not in str(raised.value)


def test_what_a_user_may_not_do_is_refused_and_a_watch_says_so_to_its_owner(
    guarded: EtcdServer,
) -> None:
    with _ann(guarded, namespace="others").open() as world, _ann(guarded).open() as mine:
        node = world.node()
        with pytest.raises(LedgerRefused, match="the user 'ann' may not do this"):
            node.ledger.read("members/", deadline=soon())
        with pytest.raises(LedgerRefused):
            node.join("a")
        since = mine.node().ledger.read("members/", deadline=soon())
        watch = node.ledger.watch("members/", since=since, deadline=soon())
        node.changes.wait_for(lambda: "permission denied" in _refusal(watch))
        assert "watch 'members/'" in _refusal(watch)


def test_a_token_that_ran_out_is_renewed_without_anybody_noticing(guarded: EtcdServer) -> None:
    with _ann(guarded).open() as world:
        idle, busy = world.node(), world.node()
        old = idle.ledger.watch("members/", deadline=soon())
        busy.join("a")
        idle.changes.wait_for(lambda: keys(old.view()) == ["members/a"])
        logins = guarded.requests()["Authenticate"]
        time.sleep(2.5 * _TOKEN)
        # The stream was opened with the old token, and so was everything that is asked on it.
        new = idle.ledger.watch("log/", since=old.view().only(""), deadline=soon())
        guard = busy.join("b").record
        busy.create(guard, busy.session.grant_lease(60, deadline=soon()), x=b"x")
        idle.changes.wait_for(lambda: keys(old.view()) == ["members/a", "members/b"])
        idle.changes.wait_for(lambda: keys(new.view()) == ["log/x"])
        assert busy.session.state is SessionState.CONNECTED
        assert guarded.requests()["Authenticate"] > logins


def test_a_session_that_is_over_is_lost_also_to_a_user_who_may_read_little(
    guarded: EtcdServer,
) -> None:
    with _ann(guarded, ttl=1).open() as world:
        one, two = world.node(), world.node()
        session = one.session
        two.ledger.end_lease(session.lease, deadline=soon())
        one.changes.wait_for(lambda: session.state is SessionState.LOST)


def test_a_token_that_is_older_than_the_permissions_is_renewed(tmp_path: Path) -> None:
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
            new = etcdrpc.AuthRoleAddRequest(name="new")
            auth.RoleAdd(new, metadata=(("token", root.token),), timeout=5)
            logins = server.requests()["Authenticate"]
            node.join("after")
            assert server.requests()["Authenticate"] > logins
            log = node.ledger.watch("log/", deadline=soon())
            node.changes.wait_for(lambda: len(watch.view().records) == 2)
            assert not log.view().records


def test_a_password_that_nobody_asks_for_does_no_harm(server: EtcdServer) -> None:
    with world_on(server.endpoint, settings={"user": "ann", "password": "secret"}).open() as world:
        world.node().join("a")


@dataclass
class Towns:
    """Certificates, and servers that have them."""

    ca: Authority
    other_ca: Authority
    client: Pair
    strange: Pair  # a client's, signed by another authority
    secure: EtcdServer  # TLS, wants client certificates
    elsewhere: EtcdServer  # TLS, its certificate is for another host

    def settings(self, **changes: str) -> dict[str, str]:
        """What a client needs, with some of it changed or (empty) left out."""
        all_of_it = {
            "cacert": str(self.ca.cert),
            "cert": str(self.client.cert),
            "key": str(self.client.key),
        }
        return {name: value for name, value in {**all_of_it, **changes}.items() if value}


@pytest.fixture(scope="module")
def towns(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Towns]:
    folder = tmp_path_factory.mktemp("certificates")
    ca, other_ca = Authority(folder), Authority(folder, "other")
    here = ca.issue("here", "127.0.0.1", "localhost")
    there = ca.issue("there", "elsewhere.example")
    client, strange = ca.issue("client", "client"), other_ca.issue("strange", "client")
    with (
        etcd(tls=here, client_ca=ca.cert) as secure,
        etcd(tls=there) as elsewhere,
    ):
        yield Towns(ca, other_ca, client, strange, secure, elsewhere)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_a_client_with_a_certificate_is_let_in_by_address_and_by_name(
    towns: Towns, host: str
) -> None:
    endpoint = Endpoint(host, towns.secure.port)
    with world_on(endpoint, settings=towns.settings()).open() as world:
        node = world.node()
        watch = node.ledger.watch("members/", deadline=soon())
        node.join("a")
        node.changes.wait_for(lambda: keys(watch.view()) == ["members/a"])


def test_a_server_name_stands_in_for_the_host_at_every_endpoint(towns: Towns) -> None:
    endpoints = [Endpoint(host, towns.elsewhere.port) for host in ("127.0.0.1", "localhost")]
    settings = towns.settings(server_name="elsewhere.example")
    for order in (endpoints, endpoints[::-1]):
        with world_on(*order, settings=settings).open() as world:
            world.node().join("a")


def _told(ledger: Ledger, error: type[Exception]) -> str:
    """What a refused client is told, which must be soon."""
    began = time.monotonic()
    with pytest.raises(error) as raised:
        ledger.read("members/", deadline=soon(20 if error is LedgerRefused else 1))
    assert time.monotonic() - began < 8
    return str(raised.value)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"cert": "", "key": ""}, "it wants a client certificate"),
        ({"cert": "strange.crt", "key": "strange.key"}, "it wants a client certificate"),
        ({"cacert": "other.crt"}, "its certificate was not signed by the CA in 'cacert'"),
    ],
)
def test_the_wrong_certificate_is_refused_with_the_reason(
    towns: Towns, changes: dict[str, str], told: str
) -> None:
    folder = towns.ca.cert.parent
    paths = {name: str(folder / file) if file else "" for name, file in changes.items()}
    with world_on(towns.secure.endpoint, settings=towns.settings(**paths)).open() as world:
        assert told in _told(world.node().ledger, LedgerRefused)


def test_a_certificate_of_another_host_is_refused_with_the_reason(towns: Towns) -> None:
    with world_on(towns.elsewhere.endpoint, settings=towns.settings()).open() as world:
        told = _told(world.node().ledger, LedgerRefused)
        assert f"127.0.0.1:{towns.elsewhere.port}: its certificate is for another host" in told


def test_plain_text_to_a_tls_server_is_explained(towns: Towns) -> None:
    with world_on(towns.secure.endpoint).open() as world:
        told = _told(world.node().ledger, LedgerUnavailable)
        assert "if it speaks TLS, give 'cacert'" in told


def test_tls_to_a_plain_server_is_explained(towns: Towns, server: EtcdServer) -> None:
    with world_on(server.endpoint, settings=towns.settings()).open() as world:
        told = _told(world.node().ledger, LedgerUnavailable)
        assert "if it speaks plain text, leave out 'cacert'" in told


@pytest.fixture
def web() -> Iterator[Endpoint]:
    """A web server, which is no etcd."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield Endpoint("127.0.0.1", server.server_port)
        server.shutdown()
        thread.join()


def test_a_web_server_is_not_taken_for_an_etcd(towns: Towns, web: Endpoint) -> None:
    with world_on(web).open() as plain, world_on(web, settings=towns.settings()).open() as secure:
        assert "what listens there is not an etcd" in _told(plain.node().ledger, LedgerRefused)
        assert "it does not speak TLS" in _told(secure.node().ledger, LedgerRefused)


def test_a_grpc_server_that_is_no_etcd_is_not_taken_for_one() -> None:
    with ThreadPoolExecutor(2) as pool:
        server = grpc.server(pool)
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        try:
            with world_on(Endpoint("127.0.0.1", port)).open() as world:
                assert "has no etcd v3 API" in _told(world.node().ledger, LedgerRefused)
        finally:
            server.stop(None).wait()


def test_one_wrong_endpoint_among_good_ones_does_no_harm(towns: Towns, web: Endpoint) -> None:
    endpoints = (web, towns.elsewhere.endpoint, towns.secure.endpoint)
    with world_on(*endpoints, settings=towns.settings()).open() as world:
        world.node().join("a")


def test_nothing_secret_is_in_what_a_ledger_prints_of_itself(
    guarded: EtcdServer, tmp_path: Path
) -> None:
    with _ann(guarded).open() as world:
        assert "secret" not in repr(world.node().ledger)
