"""Endpoints as values."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llutil.backends.backend import Backend
from llutil.backends.endpoints import Endpoint, parse_endpoints
from llutil.backends.table import BACKENDS
from llutil.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("etcd:2379", [Endpoint("etcd", 2379)]),
        ("10.0.0.1:1,10.0.0.2:65535", [Endpoint("10.0.0.1", 1), Endpoint("10.0.0.2", 65535)]),
        (" a:1 , b:2 ,", [Endpoint("a", 1), Endpoint("b", 2)]),
        ("[::1]:2379,[fe80::1%eth0]:1", [Endpoint("::1", 2379), Endpoint("fe80::1%eth0", 1)]),
        ("a:1,b:2,a:1", [Endpoint("a", 1), Endpoint("b", 2)]),
        ("etcd-0.etcd.ns.svc:2379", [Endpoint("etcd-0.etcd.ns.svc", 2379)]),
    ],
)
def test_what_is_an_endpoint(text: str, wanted: list[Endpoint]) -> None:
    assert list(parse_endpoints(text)) == wanted


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "wanted host:port"),
        (" , ", "wanted host:port"),
        ("etcd", "has no port"),
        ("[::1]", "has no port"),
        ("::1", "ambiguous"),
        ("fe80::1:2379", "ambiguous"),
        ("[etcd]:2379", "ambiguous"),
        ("[10.0.0.1]:2379", "ambiguous"),
        (":2379", "no usable host"),
        ("a b:2379", "no usable host"),
        ("user@host:2379", "wanted host:port; user and password are options of their own"),
        ("host:", "has the port ''"),
        ("host:0", "has the port '0'"),
        ("host:65536", "has the port '65536'"),
        ("host:+1", "has the port '+1'"),
        ("host:²", "has the port '²'"),
        ("http://host:2379", "has a scheme"),
        ("https://host:2379", "TLS is chosen by giving 'cacert'"),
    ],
)
def test_what_is_not_an_endpoint(text: str, told: str) -> None:
    with pytest.raises(ConfigError, match="endpoint") as raised:
        parse_endpoints(text)
    assert told in str(raised.value)


@pytest.mark.parametrize("backend", BACKENDS.values(), ids=lambda one: one.name)
@pytest.mark.parametrize(
    "text",
    [
        "ann:hidden@store:1",
        "http://ann:hidden@store:1",
        "ann:hid/hidden@store:1/root",
        "ann:hidden,hidden@store:1",
        "ann:hidden@hidden@store",
        "a:1,ann:hidden@store:1",
    ],
)
def test_an_endpoint_with_a_password_is_refused_and_not_shown(backend: Backend, text: str) -> None:
    with pytest.raises(ConfigError, match="user and password are options") as raised:
        backend.endpoints(text)
    assert "hid" not in str(raised.value)
    assert "store" in str(raised.value)


def test_all_that_is_wrong_is_told_at_once() -> None:
    with pytest.raises(ConfigError) as raised:
        parse_endpoints("good:1,bad,worse:x")
    assert len(raised.value.problems) == 2


@settings(derandomize=True, max_examples=50)
@given(
    st.lists(
        st.builds(
            Endpoint,
            st.one_of(
                st.from_regex(r"[a-z][a-z0-9.-]{0,20}", fullmatch=True),
                st.ip_addresses(v=4).map(str),
                st.ip_addresses(v=6).map(str),
            ),
            st.integers(1, 65535),
        ),
        min_size=1,
        max_size=4,
        unique=True,
    )
)
def test_an_endpoint_reads_what_it_writes(endpoints: list[Endpoint]) -> None:
    assert list(parse_endpoints(",".join(map(str, endpoints)))) == endpoints


@pytest.mark.parametrize(("host", "version"), [("1.2.3.4", 4), ("::1", 6), ("etcd", None)])
def test_an_address_is_told_from_a_name(host: str, version: int | None) -> None:
    assert Endpoint(host, 1).ip_version == version
