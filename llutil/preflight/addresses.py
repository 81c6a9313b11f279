"""Whether the other nodes of a job find this one: problems with its address, for people.

A name that does not resolve takes up to a second. This module may import the standard library,
``llutil.backends`` and ``llutil.system``.
"""

from __future__ import annotations

import errno
import socket
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from typing import Any, TypeVar

from llutil.backends.backend import Backend
from llutil.system.addresses import is_loopback

__all__ = ["address_problems", "ask_resolver", "loopback_problems"]

T = TypeVar("T")

_RESOLVE_TIMEOUT = 1.0
"""How long a resolver has to answer, in seconds."""


def address_problems(
    local_addr: str | None, backend: Backend, endpoint: str, *, one_host: bool
) -> list[str]:
    """The problems with the address at which the other nodes find this one: ``local_addr`` if it is
    given, else that of the route to the rendezvous. ``one_host``: all nodes are on this host.

    :raises TimeoutError: the resolver has not answered in time.
    """
    if local_addr:
        own = local_addr.strip("[]")  # an IPv6 address may be in brackets
        return _local_addr_problems(own) or loopback_problems(own, "local_addr", one_host=one_host)
    if not backend.has_ledger:
        name = ask_resolver(socket.getfqdn)
        if _first_resolved([(name, 0)]) is None:
            return [
                f"this host's name {name!r} does not resolve, and the other nodes are told it; "
                "give local_addr, or let the name resolve on every host"
            ]
        return []
    found = _first_resolved([(one.host, one.port) for one in backend.endpoints(endpoint)])
    if found is None:
        return [
            f"no host of rdzv_endpoint {endpoint!r} resolves here: this node cannot "
            "reach the rendezvous"
        ]
    family, address = found
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        probe.connect(address)  # sends nothing: connect(2)
        own = str(probe.getsockname()[0])
    return loopback_problems(own, "rdzv_endpoint", one_host=one_host)


def loopback_problems(own: str, option: str, *, one_host: bool) -> list[str]:
    """The problems with the address ``own``: ``local_addr``, or what the route to ``option`` has
    led to.
    """
    if not one_host and is_loopback(own):
        wanted = f"{option} by an address that all hosts share, or local_addr"
        if option == "local_addr":
            wanted = "a local_addr that they reach"
        return [
            f"this node's address for the others is {own}, where no other host finds it; give "
            f"{wanted}"
        ]
    return []


def _local_addr_problems(given: str) -> list[str]:
    """The problems with ``local_addr``, which is ``given``."""
    found = _first_resolved([(given, 0)])
    if found is None:
        return [
            f"local_addr {given!r} does not resolve here, and probably nowhere: the other nodes "
            "cannot find this one; give an address of this host"
        ]
    family, address = found
    try:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.bind(address)
    except OSError as error:
        if error.errno != errno.EADDRNOTAVAIL:
            raise
        return [
            f"local_addr {given!r} is not an address of this host: unless something forwards it, "
            "the other nodes cannot reach this one"
        ]
    return []


def _first_resolved(places: Sequence[tuple[str, int]]) -> tuple[socket.AddressFamily, Any] | None:
    """The family and the address of the first host and port of ``places`` that resolves.

    :raises TimeoutError: the resolver has not answered in time.
    """

    def ask() -> tuple[socket.AddressFamily, Any] | None:
        for host, port in places:
            with suppress(OSError, UnicodeError):
                family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[
                    0
                ]
                return family, address
        return None

    return ask_resolver(ask)


def ask_resolver(ask: Callable[[], T]) -> T:
    """What ``ask`` returns; it asks a resolver in a thread.

    A resolver cannot be interrupted, and may take many seconds if the DNS is away.

    :raises TimeoutError: it takes too long.
    """
    answer: Future[T] = Future()

    def run() -> None:
        try:
            answer.set_result(ask())
        except Exception as error:  # noqa: BLE001 - the edge of the thread
            answer.set_exception(error)

    threading.Thread(target=run, name="preflight-name", daemon=True).start()
    try:
        return answer.result(timeout=_RESOLVE_TIMEOUT)
    except TimeoutError:
        raise TimeoutError(f"no name was resolved within {_RESOLVE_TIMEOUT:g} s") from None
