"""The button "Test connection" of an etcd connection, against a real etcd that wants passwords."""

from __future__ import annotations

import json
import secrets
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from airflow_provider.hooks.etcd import EtcdHook
from tests.ports import free_ports
from tests.servers import EtcdServer, etcd, with_passwords

pytestmark = pytest.mark.etcd


@pytest.fixture(scope="module")
def server() -> Iterator[EtcdServer]:
    with etcd() as server:
        with_passwords(server, {"ann": ("a-secret-word", "/ann")})
        yield server


def _test(monkeypatch: pytest.MonkeyPatch, **fields: object) -> tuple[bool, str]:
    name = f"c{secrets.token_hex(4)}"
    monkeypatch.setenv(f"AIRFLOW_CONN_{name.upper()}", json.dumps({"conn_type": "etcd", **fields}))
    return EtcdHook(name).test_connection()


def test_a_user_with_rights_can_use_it_and_leaves_nothing(
    server: EtcdServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    dead = free_ports(1)[0]
    fits, text = _test(
        monkeypatch,
        host=f"127.0.0.1:{dead},{server.endpoint}",
        login="ann",
        password="a-secret-word",
        extra={"namespace": "ann"},
    )
    assert fits, text
    assert "can be used" in text
    puts, deletes = (server.metrics(f"etcd_mvcc_{kind}_total") for kind in ("put", "delete"))
    assert puts == deletes == {"": 1}


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"login": "ann", "password": "another-word"}, "authentication failed"),
        (
            {"login": "ann", "password": "a-secret-word", "extra": {"namespace": "bob"}},
            "permission denied",
        ),
        ({"host": ""}, "has no host"),
        ({"extra": {"cacert": "/no/such/file"}}, "/no/such/file"),
    ],
    ids=["password", "namespace", "host", "file"],
)
def test_what_would_fail_a_job_is_told_before_and_without_the_password(
    server: EtcdServer, monkeypatch: pytest.MonkeyPatch, fields: dict[str, object], told: str
) -> None:
    fits, text = _test(monkeypatch, **{"host": str(server.endpoint), **fields})
    assert not fits
    assert told in text
    assert "word" not in text.replace("password", "")


def test_neither_grpc_nor_etcd3_is_imported_by_the_hook(server: EtcdServer, tmp_path: Path) -> None:
    """Nor by a test of the connection, which a process of Airflow asks for."""
    program = (
        "import sys; from airflow_provider.hooks.etcd import EtcdHook; "
        "fits, text = EtcdHook('c').test_connection(); "
        "print('FOUND', fits, sorted({'grpc', 'etcd3'} & sys.modules.keys()), text)"
    )
    connection = {"conn_type": "etcd", "host": str(server.endpoint)}
    connection |= {"login": "root", "password": "root"}
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
