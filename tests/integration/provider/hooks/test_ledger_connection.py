"""The button "Test connection" of connections to stores, against real ones that want passwords."""

from __future__ import annotations

import json
import secrets
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from airflow_provider.hooks.etcd import EtcdHook
from airflow_provider.hooks.ledger_connection import LedgerHook
from airflow_provider.hooks.zookeeper import ZooKeeperHook
from tests.support.etcd_servers import EtcdServer
from tests.support.ports import free_ports
from tests.support.stores import DURABLE_STORES, ETCD, ZOOKEEPER, Server, Store
from tests.support.zookeeper_servers import ZooKeeperServer, client

pytestmark = pytest.mark.parametrize("store", DURABLE_STORES)

_HOOKS: dict[str, type[LedgerHook]] = {"etcd": EtcdHook, "zookeeper": ZooKeeperHook}
_ANN = {"login": "ann", "password": "secret"}


@pytest.fixture(scope="module")
def guarded_etcd() -> Iterator[EtcdServer]:
    with ETCD.guarded() as server:
        yield server


@pytest.fixture(scope="module")
def guarded_zookeeper() -> Iterator[ZooKeeperServer]:
    with ZOOKEEPER.guarded() as server:
        yield server


@pytest.fixture
def server(store: Store, guarded_etcd: EtcdServer, guarded_zookeeper: ZooKeeperServer) -> Server:
    """A server where /ann is ann's, and /bob is not."""
    return guarded_etcd if store is ETCD else guarded_zookeeper


def _test(monkeypatch: pytest.MonkeyPatch, store: Store, **fields: object) -> tuple[bool, str]:
    name = f"c{secrets.token_hex(4)}"
    stored = json.dumps({"conn_type": store.name, **fields})
    monkeypatch.setenv(f"AIRFLOW_CONN_{name.upper()}", stored)
    return _HOOKS[store.name](name).test_connection()


def test_a_user_with_rights_can_use_it_and_leaves_nothing(
    store: Store, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    dead = free_ports(1)[0]
    host = f"127.0.0.1:{dead},{server.endpoint}"
    fits, text = _test(monkeypatch, store, host=host, **_ANN, extra={"namespace": "ann/probed"})
    assert fits, text
    assert "can be used" in text
    ledger = store.ledger(server.endpoint, user="ann", password="secret", namespace="ann/probed")
    try:
        assert not ledger.read("probes/", deadline=time.monotonic() + 10).records
    finally:
        ledger.close()


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        (
            {**_ANN, "password": "guess", "extra": {"namespace": "ann/x"}},
            {
                "etcd": "does not know the user 'ann' with this password",
                "zookeeper": "the user 'ann' with this password may not do this",
            },
        ),
        ({**_ANN, "extra": {"namespace": "bob"}}, "may not do this"),
        ({"host": ""}, "has no host"),
        ({"extra": {"cacert": "/no/such/file"}}, "/no/such/file"),
        ({"host": "127.0.0.1:1"}, "127.0.0.1:1: "),
    ],
    ids=["password", "namespace", "host", "file", "nobody"],
)
def test_what_would_fail_a_job_is_told_before_and_without_the_password(
    store: Store,
    server: Server,
    monkeypatch: pytest.MonkeyPatch,
    fields: dict[str, object],
    told: str | dict[str, str],
) -> None:
    fits, text = _test(monkeypatch, store, **{"host": str(server.endpoint), **fields})
    assert not fits
    assert (told if isinstance(told, str) else told[store.name]) in text
    assert "guess" not in text
    assert "secret" not in text


def test_a_missing_chroot_and_a_time_that_is_not_granted_are_told(
    store: Store, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    if store is ETCD:
        fits, text = _test(monkeypatch, store, host=str(server.endpoint), extra={"lease_ttl": 2.5})
        assert "etcd counts leases in whole seconds" in text
    else:
        fits, text = _test(monkeypatch, store, host=f"{server.endpoint}/nowhere")
        assert "has no chroot '/nowhere'" in text
        fits, text = _test(monkeypatch, store, host=str(server.endpoint), extra={"lease_ttl": 90})
        assert "lease_ttl is 90 s, but" in text
        assert isinstance(server, ZooKeeperServer)
        with client(server) as other:
            assert other.exists("/nowhere") is None
    assert not fits


def test_no_client_library_is_imported_by_the_hook(
    store: Store, server: Server, tmp_path: Path
) -> None:
    """Nor by a test of the connection, which a process of Airflow asks for."""
    hook = _HOOKS[store.name]
    program = (
        f"import sys; from {hook.__module__} import {hook.__name__} as Hook; "
        "fits, text = Hook('c').test_connection(); "
        "print('FOUND', fits, sorted({'grpc', 'etcd3', 'kazoo'} & sys.modules.keys()), text)"
    )
    connection = {"conn_type": store.name, "host": str(server.endpoint), **_ANN}
    connection |= {"extra": {"namespace": "ann/imports"}}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program],
        env={"AIRFLOW_CONN_C": json.dumps(connection), "AIRFLOW_HOME": str(tmp_path)},
        cwd="/",
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert "FOUND True [] " in done.stdout, done.stdout + done.stderr
