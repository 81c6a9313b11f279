"""Which configurations of a ZooKeeper are refused, and how an endpoint is read."""

from __future__ import annotations

import sys

import pytest

from llutil.backends.endpoints import Endpoint
from llutil.backends.table import ZEUS_ADAPTER
from llutil.errors import ConfigError
from llutil.ledgers.open_ledger import ledger_opener
from llutil.ledgers.zookeeper.config import ZooKeeperConfig
from llutil.rendezvous.build_handler import build_driver
from llutil.rendezvous.config import RendezvousConfig


def test_an_endpoint_has_servers_and_a_chroot() -> None:
    config = ZooKeeperConfig.at("a:1, [::1]:2/my/root")
    assert config.endpoints == (Endpoint("a", 1), Endpoint("::1", 2))
    assert config.chroot == "/my/root"
    assert config.hosts == "a:1,[::1]:2/my/root"
    assert ZooKeeperConfig.at("a:1/").chroot == ""


@pytest.mark.parametrize(
    ("text", "settings", "expected"),
    [
        ("", {}, "wanted host:port"),
        ("a", {}, "has no port"),
        ("a:1/x//y", {}, "chroot '/x//y' is no path"),
        ("a:1/../y", {}, "chroot '/../y' is no path"),
        ("a:1", {"user": "ann"}, "user 'ann' has no password"),
        ("a:1", {"password": "secret"}, "password for ZooKeeper is given without a user"),
        ("a:1", {"user": "a:n", "password": "secret"}, "has a colon"),
        ("a:1", {"cert": "c", "cacert": "ca"}, "has no key"),
        ("a:1", {"cert": "c", "key": "k"}, "cacert is missing"),
        ("a:1", {"sasl_mechanism": "DIGEST-MD5"}, "'DIGEST-MD5' needs a user"),
        ("a:1", {"namespace": "zookeeper/x"}, "ZooKeeper's own"),
        ("a:1", {"namespace": "a//b"}, "namespace 'a//b'"),
    ],
)
def test_settings_that_do_not_fit_each_other_are_refused(
    text: str, settings: dict[str, str], expected: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        ZooKeeperConfig.at(text, **settings)
    assert expected in str(caught.value)
    assert "secret" not in str(caught.value)


def test_a_password_is_not_shown() -> None:
    assert "secret" not in repr(ZooKeeperConfig.at("a:1", user="ann", password="secret"))


def _hide_package(monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    """Make an import of the package fail, as if it was not installed."""
    for name in list(sys.modules):
        if name.partition(".")[0] in {package, "kazoo"} or name.startswith(
            "llutil.ledgers.zookeeper."
        ):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)


def test_a_missing_kazoo_is_named_with_the_extra_that_brings_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _hide_package(monkeypatch, "kazoo")
    with pytest.raises(ConfigError, match=r"kazoo: install the extra 'zookeeper'"):
        build_driver(
            RendezvousConfig(
                backend=ZEUS_ADAPTER,
                endpoint="127.0.0.1:1",
                run_id="x",
                min_nodes=1,
                max_nodes=2,
                local_addr="127.0.0.1",
                options=ZEUS_ADAPTER.values({}, "rdzv_configs"),
            )
        )


def test_a_missing_pure_sasl_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    _hide_package(monkeypatch, "puresasl")
    settings = {"user": "ann", "password": "secret", "sasl_mechanism": "DIGEST-MD5"}
    with pytest.raises(ConfigError, match="needs the package pure-sasl: pip install pure-sasl"):
        ledger_opener(ZEUS_ADAPTER, "127.0.0.1:1", settings)(lambda: None)
