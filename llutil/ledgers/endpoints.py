"""Where a store listens: ``host:port[,host:port...]`` as values.

Hosts are names, IPv4 addresses, or IPv6 addresses in brackets. This module resolves nothing. It may
import nothing but the standard library and ``llutil.errors``.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass

from llutil.errors import ConfigError, Problem

__all__ = ["Endpoint", "parse_endpoints"]


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


def _parse(text: str) -> Endpoint | Problem:
    """The endpoint, or what is wrong with it."""
    wanted = "wanted host:port, with an IPv6 address in brackets"
    if "://" in text:
        return _problem(text, f"has a scheme; {wanted} (TLS is chosen by giving 'cacert')")
    host, colon, port = text.rpartition(":")
    if not colon or port.endswith("]"):
        return _problem(text, f"has no port; {wanted}")
    bracketed = host.startswith("[") and host.endswith("]")
    host = host[1:-1] if bracketed else host
    if not host or any(char in "[]/@ " for char in host):
        return _problem(text, f"has no usable host; {wanted}")
    endpoint = Endpoint(host, int(port)) if port.isascii() and port.isdigit() else None
    if endpoint is None or not 1 <= endpoint.port <= 65535:
        return _problem(text, f"has the port {port!r}; a port is a number from 1 to 65535")
    if bracketed != (":" in host) or (bracketed and endpoint.ip_version != 6):
        return _problem(text, f"is ambiguous; {wanted}")
    return endpoint


def _problem(endpoint: str, text: str) -> Problem:
    return Problem("endpoint", f"{endpoint!r} {text}")


def parse_endpoints(text: str) -> tuple[Endpoint, ...]:
    """The endpoints that ``text`` names, in its order, each once.

    :raises ConfigError: there are none, or some are not ``host:port``; it lists all that is wrong.
    """
    parsed = [_parse(part.strip()) for part in text.split(",") if part.strip()]
    if not parsed:
        raise ConfigError(Problem("endpoint", f"is {text!r}; wanted host:port[,host:port...]"))
    if problems := [one for one in parsed if isinstance(one, Problem)]:
        raise ConfigError(problems)
    return tuple(dict.fromkeys(one for one in parsed if isinstance(one, Endpoint)))
