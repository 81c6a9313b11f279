"""``start_server``: the server of a job's ledger, if this node is the one that serves it.

The node serves whose address the endpoint has. Of several agents on that machine, the one does that
gets the port; the others find it taken, and are clients, which stand by until their first round.
This module may import the standard library and this folder.
"""

from __future__ import annotations

import errno
import logging
import os
import socket
from functools import partial

from llutil.backends.endpoints import Endpoint
from llutil.errors import ConfigError, RendezvousError
from llutil.ledgers.served.config import ServedConfig
from llutil.ledgers.served.job_server import JobServer
from llutil.ledgers.served.server import LedgerServer
from llutil.ledgers.served.standby_server import StandbyServer
from llutil.system.addresses import host_and_port, is_loopback

__all__ = ["start_server"]

_log = logging.getLogger(__name__)


def start_server(config: ServedConfig, *, serves: bool | None, several: bool) -> JobServer | None:
    """The running server; None if this node does not serve. One that stands by if another agent of
    this machine, or a program, has the port.

    ``serves`` says whether it does; None: that follows from the endpoint. ``several``: the job may
    have several nodes.

    :raises ConfigError: the endpoint is that of several machines, or has no fixed port.
    :raises RendezvousError: this node has to serve, and cannot.
    """
    endpoint = config.endpoint
    if serves is False:
        return None
    if endpoint.port == 0 and serves is None:
        raise ConfigError(
            f"rdzv_endpoint is {endpoint}; wanted a port, which the other nodes know too"
        )
    own, foreign = _addresses(endpoint)
    if serves is None and not own:
        return None
    if serves is None and foreign:
        raise ConfigError(
            f"rdzv_endpoint is {endpoint}, whose host has addresses of this machine "
            f"({', '.join(own)}) and of others ({', '.join(foreign)}); wanted one node's, which "
            "serves the ledger"
        )
    start = partial(
        LedgerServer,
        _listens_at(endpoint, own),
        endpoint.port,
        secret=config.secret,
        run_id=config.run_id,
    )
    try:
        server = start()
    except OSError as error:
        if error.errno == errno.EADDRINUSE and serves is None:
            _log.info(
                "another agent of this machine serves the ledger at %s, or a program", endpoint
            )
            return StandbyServer(start, str(endpoint))
        raise RendezvousError(
            f"this node cannot serve the job's ledger at {endpoint}: {_why(error)}; "
            "choose another port, or set local_addr to an address at which it can be reached"
        ) from error
    _log.info("this node serves the job's ledger at %s", host_and_port(endpoint.host, server.port))
    if several and serves is None and is_loopback(endpoint.host):
        _log.warning(
            "the ledger is served at %s, where only agents of this machine reach it; nodes on "
            "other machines need the address of this one as rdzv_endpoint",
            endpoint,
        )
    return server


def _addresses(endpoint: Endpoint) -> tuple[list[str], list[str]]:
    """The addresses of the endpoint's host: those of this machine, and all others."""
    try:
        found = socket.getaddrinfo(endpoint.host, endpoint.port, type=socket.SOCK_STREAM)
    except OSError:
        return [], []  # who connects to it says so
    own: dict[str, None] = {}
    foreign: dict[str, None] = {}
    for family, kind, _, _, address in found:
        text = str(address[0])
        try:
            with socket.socket(family, kind) as probe:
                probe.bind((text, 0, *address[2:]))
            own[text] = None
        except OSError:
            foreign[text] = None
    return list(own), list(foreign)


def _listens_at(endpoint: Endpoint, own: list[str]) -> str:
    """Where the server listens, so that others reach it at the endpoint; empty: everywhere.

    Many a machine's name leads to a loopback address on that machine itself, and only there.
    """
    if is_loopback(endpoint.host) or not own:
        return endpoint.host
    if len(own) > 1 or is_loopback(own[0]):
        return ""
    return own[0]


def _why(error: OSError) -> str:
    if isinstance(error, socket.gaierror) or not error.errno:
        return error.strerror or str(error)
    return os.strerror(error.errno)  # without what Python adds
