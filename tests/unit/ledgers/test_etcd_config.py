"""What goes together in the settings for an etcd, and the files that they name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from llutil.errors import ConfigError
from llutil.ledgers.endpoints import Endpoint
from llutil.ledgers.etcd.config import EtcdConfig, read_tls
from tests.certificates import Authority, Pair

_HERE = (Endpoint("127.0.0.1", 2379),)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"endpoints": ()}, ["no endpoint"]),
        ({"password": "x"}, ["without a user"]),
        ({"user": "ann"}, ["'ann' has no password"]),
        ({"cert": "c", "cacert": "a"}, ["'c' has no key"]),
        ({"key": "k", "cacert": "a"}, ["'k' has no certificate"]),
        ({"cert": "c", "key": "k"}, ["without 'cacert'", "plain text is not used instead"]),
        ({"cert": "c"}, ["'c' has no key", "without 'cacert'"]),
        ({"server_name": "etcd"}, ["'etcd' means nothing without TLS"]),
        ({"namespace": "a//b"}, ["namespace 'a//b'"]),
        ({"user": "ann", "key": "k", "namespace": ""}, ["'ann'", "'k'", "'cacert'", "namespace"]),
    ],
)
def test_what_does_not_go_together_is_refused_all_at_once(
    settings: dict[str, Any], told: list[str]
) -> None:
    with pytest.raises(ConfigError) as raised:
        EtcdConfig(**{"endpoints": _HERE, **settings})
    for text in told:
        assert text in str(raised.value)


def test_a_password_is_not_shown() -> None:
    config = EtcdConfig(endpoints=_HERE, user="ann", password="secret")
    assert "secret" not in repr(config) + str(config)
    assert str(config) == "etcd at 127.0.0.1:2379"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tls")
    authority = Authority(folder)
    authority.issue("ann", "ann")
    authority.issue("bob", "bob")
    (folder / "junk").write_text("not PEM")
    return folder


def _config(folder: Path, **files: str) -> EtcdConfig:
    paths = {name: str(folder / file) for name, file in files.items()}
    return EtcdConfig(endpoints=_HERE, **paths)


def test_tls_is_read_and_plain_text_reads_nothing(folder: Path) -> None:
    assert read_tls(EtcdConfig(endpoints=_HERE)) is None
    pair = Pair(folder / "ann.crt", folder / "ann.key")
    tls = read_tls(_config(folder, cacert="authority.crt", cert="ann.crt", key="ann.key"))
    assert tls
    assert (tls.cert, tls.key) == (pair.cert.read_bytes(), pair.key.read_bytes())
    assert "PRIVATE" not in repr(tls)
    bare = read_tls(_config(folder, cacert="authority.crt"))
    assert bare
    assert (bare.cert, bare.key) == (None, None)


@pytest.mark.parametrize(
    ("files", "told"),
    [
        ({"cacert": "none"}, ["the CA file", "none' cannot be read: No such file"]),
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
    folder: Path, files: dict[str, str], told: list[str]
) -> None:
    with pytest.raises(ConfigError) as raised:
        read_tls(_config(folder, **files))
    for text in told:
        assert text in str(raised.value)
