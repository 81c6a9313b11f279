"""TLS files are read and checked, for every store."""

from __future__ import annotations

import os
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from llutil.backends.endpoints import Endpoint
from llutil.errors import ConfigError
from llutil.ledgers import credentials
from llutil.ledgers.credentials import TlsReader, client_context, read_tls
from llutil.ledgers.etcd import http_revocation
from llutil.ledgers.etcd.config import EtcdConfig
from llutil.ledgers.etcd.connection import Connection
from llutil.ledgers.zookeeper.config import ZooKeeperConfig
from llutil.ledgers.zookeeper.kazoo_client import KazooLog, make_client
from tests.support.certificates import Authority, Pair


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tls")
    authority = Authority(folder)
    authority.issue("ann", "ann")
    authority.issue("bob", "bob")
    (folder / "junk").write_text("not PEM")
    return folder


@dataclass(frozen=True)
class _Files:
    cacert: str = ""
    cert: str = ""
    key: str = ""


def _paths(folder: Path, **files: str) -> _Files:
    return _Files(**{name: str(folder / file) for name, file in files.items()})


def test_tls_is_read_and_plain_text_reads_nothing(folder: Path) -> None:
    assert read_tls(_Files()) is None
    pair = Pair(folder / "ann.crt", folder / "ann.key")
    tls = read_tls(_paths(folder, cacert="authority.crt", cert="ann.crt", key="ann.key"))
    assert tls
    assert (tls.cert, tls.key) == (pair.cert.read_bytes(), pair.key.read_bytes())
    assert "PRIVATE" not in repr(tls)
    without_pair = read_tls(_paths(folder, cacert="authority.crt"))
    assert without_pair
    assert (without_pair.cert, without_pair.key) == (None, None)


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"cacert": "none"}, ["cacert", "none' cannot be read: No such file"]),
        (
            {"cacert": "none", "cert": "nor.crt", "key": "nor.key"},
            ["none'", "nor.crt'", "nor.key'"],
        ),
        ({"cacert": "junk"}, ["holds no certificate in PEM form"]),
        ({"cacert": "authority.crt", "cert": "junk", "key": "ann.key"}, ["cannot be used"]),
        ({"cacert": "authority.crt", "cert": "ann.crt", "key": "bob.key"}, ["belongs together"]),
    ],
)
def test_files_that_cannot_be_used_are_refused_by_name(
    folder: Path, files: dict[str, str], expected: list[str]
) -> None:
    with pytest.raises(ConfigError) as raised:
        read_tls(_paths(folder, **files))
    for text in expected:
        assert text in str(raised.value)


@pytest.mark.parametrize("gone", ["authority.crt", "ann.crt", "ann.key"])
def test_a_file_that_goes_while_it_is_checked_leaves_what_was_read_before(
    gone: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for path in folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    reader = TlsReader(_paths(tmp_path, cacert="authority.crt", cert="ann.crt", key="ann.key"))
    before = reader.contents
    os.utime(tmp_path / gone, (1, 1))

    class Context(ssl.SSLContext):
        """Somebody rotates the files just when they have been read."""

        def load_verify_locations(self, *args: Any, **options: Any) -> None:
            (tmp_path / gone).unlink(missing_ok=True)
            super().load_verify_locations(*args, **options)

    monkeypatch.setattr(ssl, "SSLContext", Context)
    reader.renew()
    assert reader.contents is before


@dataclass(frozen=True)
class _Login(_Files):
    user: str = "ann"
    password: str = "hidden-word"


@pytest.fixture
def plain_text_warnings(caplog: pytest.LogCaptureFixture) -> Iterator[Callable[[], list[str]]]:
    """The warnings of plain text since the test began, as if the process had begun with it."""
    credentials._warn_of_plain_text.cache_clear()
    yield lambda: [text for text in caplog.messages if "without TLS" in text]
    credentials._warn_of_plain_text.cache_clear()


def test_a_password_without_tls_is_warned_of_once_in_a_process(
    plain_text_warnings: Callable[[], list[str]],
) -> None:
    for login in (_Login(password=""), _Login(cacert="ca")):
        credentials.warn_of_plain_text(login, "etcd")
        assert plain_text_warnings() == []
    for _ in range(3):
        credentials.warn_of_plain_text(_Login(), "etcd")
        (warning,) = plain_text_warnings()
    assert "'cacert'" in warning
    assert "hidden" not in warning


def test_each_store_that_is_used_without_tls_is_warned_of(
    plain_text_warnings: Callable[[], list[str]],
) -> None:
    here = (Endpoint("127.0.0.1", 1),)
    Connection(EtcdConfig(endpoints=here, user="ann", password="hidden-word")).close()
    make_client(ZooKeeperConfig(endpoints=here, user="ann", password="x"), 10, None, KazooLog())
    assert [text.split()[5] for text in plain_text_warnings()] == ["etcd", "ZooKeeper"]


def _context_of_a_revocation(cacert: str) -> ssl.SSLContext:
    argument = {"cacert": cacert, "cert": "", "key": "", "server_name": ""}
    made: object = http_revocation._connect(Endpoint("h", 1), argument, time.monotonic() + 5)
    assert isinstance(made, ssl.SSLContext)
    return made


@pytest.mark.parametrize("make", [lambda ca: client_context(_Files(ca)), _context_of_a_revocation])
def test_no_python_asks_more_of_a_certificate_than_grpc_does(
    make: Callable[[str], ssl.SSLContext], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Since Python 3.13 a default context refuses what lacks a key identifier, for one."""
    default = ssl.create_default_context

    def strict(*, cafile: str) -> ssl.SSLContext:
        context = default(cafile=cafile)
        context.verify_flags |= ssl.VERIFY_X509_STRICT
        return context

    monkeypatch.setattr(ssl, "create_default_context", strict)
    monkeypatch.setattr(socket, "create_connection", lambda address, timeout: socket.socket())
    monkeypatch.setattr(ssl.SSLContext, "wrap_socket", lambda self, sock, **_: sock.close() or self)
    context = make(str(folder / "authority.crt"))
    assert not context.verify_flags & ssl.VERIFY_X509_STRICT
    assert (context.verify_mode, context.check_hostname) == (ssl.CERT_REQUIRED, True)
