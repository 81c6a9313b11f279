"""Where a store listens: ``host:port[,host:port...]`` as values.

Hosts are names, IPv4 addresses, or IPv6 addresses in brackets. This module resolves nothing. It may
import nothing but the standard library and ``llutil.errors``.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass

from llutil.errors import ConfigError, Problem

__all__ = ["Endpoint", "check_no_user", "parse_endpoints", "shown_endpoint"]


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One address of a store. ``host`` has no brackets."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def ip_version(self) -> int | None:
        """4 or 6 if the host is an address, None if it is a name."""
        try:
            return ipaddress.ip_address(self.host).version
        except ValueError:
            return None


def _parse(text: str, lowest_port: int) -> Endpoint | str:
    """The endpoint, or what is wrong with it."""
    wanted = "wanted host:port, with an IPv6 address in brackets"
    if "://" in text:
        return f"has a scheme; {wanted} (TLS is chosen by giving 'cacert')"
    host, colon, port = text.rpartition(":")
    if not colon or port.endswith("]"):
        return f"has no port; {wanted}"
    bracketed = host.startswith("[") and host.endswith("]")
    host = host[1:-1] if bracketed else host
    if not host or any(char in "[]/@," or char.isspace() for char in host):
        return f"has no usable host; {wanted}"
    endpoint = Endpoint(host, int(port)) if port.isascii() and port.isdigit() else None
    if endpoint is None or not lowest_port <= endpoint.port <= 65535:
        return f"has the port {port!r}; wanted {lowest_port} to 65535"
    if bracketed != (":" in host) or (bracketed and endpoint.ip_version != 6):
        return f"is ambiguous; {wanted}"
    return endpoint


def shown_endpoint(text: str) -> str:
    """The ``repr`` of ``text`` for people, without what stands before an ``@``: it may hold a
    password.
    """
    before, at, host = text.rpartition("@")
    return repr("***@" + host) if at and before else repr(text)


def check_no_user(text: str, name: str) -> None:
    """Refuse an endpoint ``user:password@host:port``, and do not show it.

    :raises ConfigError: ``text``, which the field ``name`` has, is of that form.
    """
    if "@" in text:
        why = "wanted host:port; user and password are options of their own"
        raise ConfigError(Problem(name, f"is {shown_endpoint(text)}; {why}"))


def parse_endpoints(
    text: str, name: str = "endpoint", *, several: bool = True, lowest_port: int = 1
) -> tuple[Endpoint, ...]:
    """The endpoints in ``text``, in its order, each once. ``name`` is the field that has it.

    :raises ConfigError: there are none, or some are not ``host:port``; it lists all that is wrong.
    """
    check_no_user(text, name)
    parts = [part.strip() for part in (text.split(",") if several else [text])]
    parsed = {part: _parse(part, lowest_port) for part in parts if part}
    if not parsed:
        more = "[,host:port...]" if several else ""
        raise ConfigError(Problem(name, f"is {text!r}; wanted host:port{more}"))
    wrong = {part: one for part, one in parsed.items() if isinstance(one, str)}
    if wrong:
        raise ConfigError(Problem(name, f"{part!r} {why}") for part, why in wrong.items())
    return tuple(dict.fromkeys(one for one in parsed.values() if isinstance(one, Endpoint)))
