"""torchrun's ``--rdzv-backend``, ``--rdzv-endpoint`` and ``--rdzv-conf``, for commands that look at
a store.

This module may import ``llutil.backends``: it imports no torch.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from llutil.backends.backend import Backend
from llutil.backends.table import BACKENDS, DEFAULT, backend_of_torchrun
from llutil.command_line.errors import CommandError
from llutil.errors import ConfigError

__all__ = ["Rendezvous", "add_options", "configuration_in", "rendezvous_of"]


@dataclass(frozen=True, slots=True)
class Rendezvous:
    """A store, and how it is spoken to. ``options`` has all of the backend's, defaults included."""

    backend: Backend
    endpoint: str
    options: Mapping[str, Any]


def add_options(parser: argparse.ArgumentParser, environ: Mapping[str, str]) -> None:
    """Give ``parser`` these options. ``environ`` has their defaults, in torchrun's ``PET_*``."""
    group = parser.add_argument_group("the store through which nodes agree, as for torchrun")
    names = ", ".join(backend.name for backend in BACKENDS.values() if backend.has_ledger)
    group.add_argument(
        "--rdzv-endpoint",
        "--rdzv_endpoint",
        default=environ.get("PET_RDZV_ENDPOINT", ""),
        metavar="HOST:PORT[,...]",
        help="where the store is",
    )
    group.add_argument(
        "--rdzv-backend",
        "--rdzv_backend",
        default=environ.get("PET_RDZV_BACKEND", DEFAULT.name),
        metavar="NAME",
        help=f"one of {names} (default: %(default)s)",
    )
    group.add_argument(
        "--rdzv-conf",
        "--rdzv_conf",
        default=environ.get("PET_RDZV_CONF", ""),
        metavar="KEY=VALUE[,...]",
        help="the backend's options: namespace, user, password, cacert, ...",
    )


def rendezvous_of(given: argparse.Namespace) -> Rendezvous:
    """The store that the options name.

    :raises CommandError: there is no such backend, or it keeps no ledger, or its options are wrong.
    """
    backend = backend_of_torchrun(given.rdzv_backend)
    ledgers = ", ".join(one.name for one in BACKENDS.values() if one.has_ledger)
    if backend is None:
        raise CommandError(f"--rdzv-backend is {given.rdzv_backend!r}; wanted one of {ledgers}", 2)
    if not backend.has_ledger:
        raise CommandError(
            f"torch's {backend.name} rendezvous keeps no ledger that could be looked at; {ledgers} "
            "do",
            2,
        )
    try:
        given_options = configuration_in(given.rdzv_conf)
        backend.refuse_rest_of_secret(given_options)
    except ConfigError as error:
        raise CommandError(f"--rdzv-conf {error}", 2) from error
    try:
        options = backend.values(given_options, "--rdzv-conf")
        backend.endpoints(given.rdzv_endpoint, "--rdzv-endpoint")
    except ConfigError as error:
        raise CommandError(str(error), 2) from error
    return Rendezvous(backend, given.rdzv_endpoint, options)


def configuration_in(text: str) -> dict[str, str]:
    """``text`` as torchrun reads it: ``key=value`` with commas.

    :raises ConfigError: it is not of that form. The message goes on after the option's name, and
        does not repeat a value, which may be a password.
    """
    found: dict[str, str] = {}
    wanted = "wanted key=value with commas between them"
    for pair in filter(None, (pair.strip() for pair in text.split(","))):
        key, equals, value = pair.partition("=")
        if not equals or not key.strip() or not value.strip():
            if found:  # what follows a comma may be the rest of a password, and is not shown
                last = [*found][-1]
                raise ConfigError(
                    f"has no key with a value after the comma behind {last!r}; {wanted}, and none "
                    "in a value"
                )
            raise ConfigError(f"has {key.strip()!r} without a value; {wanted}")
        found[key.strip()] = value.strip()
    return found
