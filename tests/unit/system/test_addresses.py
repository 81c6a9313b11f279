"""Which addresses lead to the machine itself, and how an address and a port are written."""

from __future__ import annotations

import pytest

from llutil.system.addresses import host_and_port, is_loopback


@pytest.mark.parametrize(
    ("addresses", "expected"),
    [
        (["127.0.0.1", "127.8.8.8", "::1", "localhost"], True),
        (["10.0.0.1", "fe80::1", "worker-3"], False),
    ],
)
def test_loopback_addresses_lead_to_the_machine_itself(
    addresses: list[str], expected: bool
) -> None:
    assert {is_loopback(address) for address in addresses} == {expected}


def test_addresses_of_ipv6_are_bracketed() -> None:
    assert [host_and_port("::1", 2), host_and_port("10.0.0.1", 2)] == ["[::1]:2", "10.0.0.1:2"]
