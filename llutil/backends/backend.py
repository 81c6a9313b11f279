"""What a rendezvous backend can, which options it has, and how its endpoints are written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from llutil.backends.endpoints import Endpoint, check_no_user, parse_endpoints
from llutil.backends.options import Option, OptionValue, Source, read_options
from llutil.errors import ConfigError, Problem

__all__ = ["Backend"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Backend:
    """A rendezvous backend. ``name`` is its ``rdzv_backend``, ``title`` what nodes meet through.

    ``has_ledger``: nodes agree through a ledger of ours; else the backend is torch's.
    ``torchrun_name``: its ``--rdzv-backend`` of a plain torchrun.
    ``connection_type``: the type of an Airflow connection that leads to it; empty: there is none.
    ``several_servers``: an endpoint may name more than one, with commas.
    ``default_port``: what servers listen on; ``lowest_port``: 0 lets the kernel choose.
    ``chroot``: the option of a connection for the path that may follow an endpoint.
    """

    name: str
    title: str
    options: tuple[Option, ...]
    has_ledger: bool = False
    torchrun_name: str = ""
    connection_type: str = ""
    several_servers: bool = False
    default_port: int = 0
    lowest_port: int = 1
    chroot: Option | None = None

    def read(
        self, given: Mapping[str, object], place: str
    ) -> tuple[dict[str, OptionValue], list[Problem]]:
        """The values of the options that are ``given`` at ``place``, and all that is wrong."""
        return read_options(self.options, given, place, f"backend {self.name!r}")

    def values(self, given: Mapping[str, object], place: str) -> dict[str, Any]:
        """The values of all options that are ``given`` at ``place``, or have a default.

        :raises ConfigError: a key is unknown, or a value not of its kind; all problems are listed.
        """
        values, problems = self.read(given, place)
        if problems:
            raise ConfigError(problems)
        defaults: dict[str, Any] = {o.key: o.default for o in self.options if o.default is not None}
        return defaults | values

    def refuse_rest_of_secret(self, given: Mapping[str, object], place: str = "") -> None:
        """Refuse a key of ``given`` that this backend does not know and that follows a secret,
        where ``given`` was read from ``key=value`` with commas at ``place``. It may be the rest of
        the secret, so that its name is not shown.

        :raises ConfigError: there is one.
        """
        known = {option.key: option for option in self.options}
        secret = ""
        for key in given:
            if key in known:
                secret = key if known[key].secret else secret
            elif secret:
                text = (
                    f"has something behind {secret!r} that backend {self.name!r} does not know; "
                    "wanted key=value with commas between them, and none in a value"
                )
                raise ConfigError(Problem(place, text))

    def endpoints(self, text: str, name: str = "endpoint") -> tuple[Endpoint, ...]:
        """The servers of an endpoint, which ``name`` names to people.

        :raises ConfigError: some are not ``host:port``; all problems are listed.
        """
        check_no_user(text, name)
        servers, _ = self.split_chroot(text)
        several, lowest = self.several_servers, self.lowest_port
        return parse_endpoints(servers, name, several=several, lowest_port=lowest)

    def split_chroot(self, text: str) -> tuple[str, str]:
        """The servers of an endpoint, and its chroot: "" or "/path"."""
        if self.chroot is None:
            return text, ""
        servers, slash, chroot = text.partition("/")
        return servers, (slash + chroot).rstrip("/")

    @property
    def connection_options(self) -> tuple[Option, ...]:
        """What the extra of a connection may have."""
        chroot = () if self.chroot is None else (self.chroot,)
        return (*chroot, *(o for o in self.options if o.source is Source.EXTRA))
