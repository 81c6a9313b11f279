"""The table of backends is what the rest of the house goes by."""

from __future__ import annotations

import configparser
from collections import Counter
from dataclasses import fields
from pathlib import Path

import pytest

from llutil.backends.backend import Backend
from llutil.backends.options import Kind
from llutil.backends.table import BACKENDS, C10D, DEFAULT, ETCD, ZEUS_ADAPTER
from llutil.launcher.config import LaunchConfig
from llutil.ledgers.etcd.config import EtcdConfig
from llutil.ledgers.open_ledger import ledger_opener
from llutil.ledgers.zookeeper.config import ZooKeeperConfig

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize("backend", BACKENDS.values(), ids=lambda one: one.name)
def test_an_option_says_what_it_is_for_and_its_default_is_of_its_kind(backend: Backend) -> None:
    for key, count in Counter(option.key for option in backend.options).items():
        assert count == 1, key
    for option in backend.options:
        assert option.text, option.key
    defaults = {o.key: o.default for o in backend.options if o.default is not None}
    assert backend.read(defaults, "it") == (defaults, [])
    assert backend.values({}, "it") == defaults


def test_every_ledger_can_be_opened_and_no_other() -> None:
    for backend in BACKENDS.values():
        if backend.has_ledger:
            assert callable(ledger_opener(backend, "127.0.0.1:1", backend.values({}, "it")))
        else:
            with pytest.raises(KeyError):
                ledger_opener(backend, "127.0.0.1:1", {})


@pytest.mark.parametrize(
    ("backend", "config", "own"),
    [(ETCD, EtcdConfig, {"endpoints"}), (ZEUS_ADAPTER, ZooKeeperConfig, {"endpoints", "chroot"})],
)
def test_what_is_text_is_a_field_of_the_stores_configuration_with_the_same_default(
    backend: Backend, config: type, own: set[str]
) -> None:
    texts = {o.key: o.default or "" for o in backend.options if o.kind is Kind.TEXT}
    assert texts == {one.name: one.default for one in fields(config) if one.name not in own}


def test_a_ledger_has_the_times_of_a_round() -> None:
    for backend in BACKENDS.values():
        times = {option.key for option in backend.options if option.kind.is_duration}
        if backend.has_ledger:
            assert times == {"timeout", "last_call_timeout", "lease_ttl", "growth_timeout"}
        assert "timeout" in times


def test_torchrun_finds_every_ledger_that_has_a_name_there() -> None:
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    lines = setup["options.entry_points"]["torchrun.handlers"].strip().splitlines()
    registered = {line.partition("=")[0].strip() for line in lines}
    ours = {one.torchrun_name for one in BACKENDS.values() if one.has_ledger}
    assert registered == ours - {""}


def test_a_configuration_that_names_no_backend_has_the_default() -> None:
    assert LaunchConfig(1, 1, 1).rdzv_backend == DEFAULT.name


def test_an_endpoint_is_written_as_its_backend_has_it() -> None:
    assert list(map(str, ETCD.endpoints("a:1,b:2"))) == ["a:1", "b:2"]
    assert list(map(str, ZEUS_ADAPTER.endpoints("a:1,b:2/c/d"))) == ["a:1", "b:2"]
    assert ZEUS_ADAPTER.split_chroot("a:1,b:2/c/d/") == ("a:1,b:2", "/c/d")
    assert ETCD.split_chroot("a:1") == ("a:1", "")
    assert C10D.endpoints("a:0")[0].port == 0
