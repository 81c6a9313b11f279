"""Which configurations of an etcd are refused."""

from __future__ import annotations

from typing import Any

import pytest

from llutil.backends.endpoints import Endpoint
from llutil.errors import ConfigError
from llutil.ledgers.etcd.config import EtcdConfig

_HERE = (Endpoint("127.0.0.1", 2379),)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"endpoints": ()}, ["endpoints of etcd are missing"]),
        ({"password": "x"}, ["without a user"]),
        ({"user": "ann"}, ["'ann' has no password"]),
        ({"cert": "c", "cacert": "a"}, ["'c' has no key"]),
        ({"key": "k", "cacert": "a"}, ["'k' has no certificate"]),
        ({"cert": "c", "key": "k"}, ["cacert is missing", "plain text is not used instead"]),
        ({"cert": "c"}, ["'c' has no key", "cacert is missing"]),
        ({"server_name": "etcd"}, ["'etcd' means nothing without TLS"]),
        ({"namespace": "a//b"}, ["namespace 'a//b'"]),
        ({"user": "ann", "key": "k", "namespace": ""}, ["'ann'", "'k'", "cacert", "namespace"]),
    ],
)
def test_settings_that_do_not_fit_each_other_are_refused_in_one_error(
    settings: dict[str, Any], expected: list[str]
) -> None:
    with pytest.raises(ConfigError) as raised:
        EtcdConfig(**{"endpoints": _HERE, **settings})
    for text in expected:
        assert text in str(raised.value)


def test_a_password_is_not_shown() -> None:
    config = EtcdConfig(endpoints=_HERE, user="ann", password="secret")
    assert "secret" not in repr(config) + str(config)
    assert str(config) == "etcd at 127.0.0.1:2379"
