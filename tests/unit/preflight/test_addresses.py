"""Whether other nodes find this one. What the operator says of it is in the provider's tests."""

from __future__ import annotations

import pytest

from llutil.backends.table import ETCD
from llutil.preflight import addresses
from llutil.preflight.addresses import address_problems, loopback_problems


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that stands still for some seconds changes nothing."""
    monkeypatch.setattr(addresses, "_RESOLVE_TIMEOUT", 60.0)


@pytest.mark.parametrize("own", ["127.0.0.1", "127.0.1.1", "::1"])
def test_a_loopback_address_is_a_problem_only_where_nodes_are_on_several_hosts(own: str) -> None:
    (problem,) = loopback_problems(own, "rdzv_endpoint", one_host=False)
    assert f"this node's address for the others is {own}, where no other host finds it" in problem
    assert not loopback_problems(own, "rdzv_endpoint", one_host=True)


@pytest.mark.parametrize("given", ["127.0.0.1", "localhost", "[127.0.0.1]"])
def test_so_it_is_for_one_that_was_given(given: str) -> None:
    (problem,) = address_problems(given, ETCD, "", one_host=False)
    assert f"this node's address for the others is {given.strip('[]')}, where no" in problem
    assert problem.endswith("give a local_addr that they reach")


def test_an_address_of_this_host_is_none() -> None:
    assert not address_problems("127.0.0.1", ETCD, "", one_host=True)
    assert not address_problems("[127.0.0.1]", ETCD, "", one_host=True)
    assert not loopback_problems("10.0.0.1", "rdzv_endpoint", one_host=False)


def test_a_local_address_of_another_host_is_a_problem() -> None:
    (problem,) = address_problems("192.0.2.1", ETCD, "", one_host=True)
    assert "'192.0.2.1' is not an address of this host" in problem
