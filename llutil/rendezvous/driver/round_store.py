"""The TCPStore of a round: the round's leader hosts it, the workers of all nodes use it.

It is bound to the node's own address, at a port that the kernel chooses, before its address is
published. Every round has a new one, so that no worker finds a key of an earlier round. This module
imports torch.
"""

from __future__ import annotations

import errno
import ipaddress
import os
import resource
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

from torch.distributed import DistError, PrefixStore, Store, TCPStore
from torch.distributed.elastic.rendezvous import RendezvousStoreInfo

from llutil.errors import RendezvousError
from llutil.system.addresses import socket_family

__all__ = [
    "SHARING_OFF",
    "RoundStore",
    "connect_to_store",
    "host_store",
    "hosting_problem",
    "place_for_ranks_store",
    "ranks_store_is_placed",
    "ranks_use_agent_store",
    "store_sharing_disabled",
]

SHARING_OFF = "TORCH_DISABLE_SHARE_RDZV_TCP_STORE"
"""torch's variable: with "1", rank 0 makes the store of the ranks, and no agent hosts it (2.13)."""


_OWN_CONNECTION = timedelta(seconds=10)
"""A TCPStore that is a host first connects to itself. That takes milliseconds, and no signal
interrupts it: with torch's default, a loopback interface that is down would cost 300 s.
"""
_REQUEST_TIMEOUT = timedelta(seconds=300)
"""torch's default."""
_RANKS = "ranks"


class RoundStore:
    """A store that serves until ``close``. ``host`` is the address that others are told.

    :raises RendezvousError: this node cannot be reached under its own address.
    """

    def __init__(self, host: str) -> None:
        try:
            store = host_store(host)
        except (OSError, DistError) as error:
            raise RendezvousError(
                f"this node cannot host a TCPStore at its own address {host!r}: "
                f"{hosting_problem(error)}, or set local_addr to an address at which this node can "
                "be reached"
            ) from error
        self._server: TCPStore | None = store
        self.host = host
        self.port: int = store.port

    def close(self) -> None:
        """Stop serving; torch closes the port when the last reference goes."""
        self._server = None


def ranks_use_agent_store() -> bool:
    """Whether the ranks use the store that an agent hosts for their round, as the user wants it."""
    with _switch.lock:
        wanted = _switch.wanted if _switch.depth else os.environ.get(SHARING_OFF)
    return wanted != "1"


@contextmanager
def store_sharing_disabled() -> Iterator[None]:
    """Make torch's handler create no store for the ranks. This environment variable is torch's only
    switch for that, and all threads have the same one. So the first that comes keeps what the user
    wants, and the last that goes restores it.
    """
    with _switch.lock:
        if _switch.depth == 0:
            _switch.wanted = os.environ.get(SHARING_OFF)
        _switch.depth += 1
        os.environ[SHARING_OFF] = "1"
    try:
        yield
    finally:
        with _switch.lock:
            _switch.depth -= 1
            if _switch.depth == 0:
                if _switch.wanted is None:
                    os.environ.pop(SHARING_OFF, None)
                else:
                    os.environ[SHARING_OFF] = _switch.wanted


class _Switch:
    """What is known of torch's variable while this process sets it."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        """Guards the variable and all that is here."""
        self.depth = 0
        """How many want it set."""
        self.wanted: str | None = None
        """The user's value, while it is set."""


_switch = _Switch()


def ranks_store_is_placed(store: Store) -> bool:
    """Whether the first node has told where rank 0 makes the ranks' own store.

    :raises DistError: the connection to ``store``, the round's, is gone.
    """
    keys = [RendezvousStoreInfo.MASTER_ADDR_KEY, RendezvousStoreInfo.MASTER_PORT_KEY]
    return bool(PrefixStore(_RANKS, store).check(keys))


def place_for_ranks_store(store: Store, group_rank: int, address: str) -> RendezvousStoreInfo:
    """Where rank 0 makes the ranks' own store: on the first node, at a port that is free there now.
    That node tells the others through ``store``, the round's. ``address`` is this node's own.

    :raises DistError: the first node has told nothing in time.
    """
    return RendezvousStoreInfo.build(group_rank, PrefixStore(_RANKS, store), local_addr=address)


def hosting_problem(error: Exception) -> str:
    """Why ``host_store`` failed, in one line, with what may be done."""
    first = str(error).partition("\n")[0].rstrip(".")
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return (
        f"{first}; see whether the network interface is up, loopback too, and whether "
        f"{limit} open files (ulimit -n) are enough"
    )


def host_store(host: str) -> TCPStore:
    """A store that this process hosts. It listens at the address ``host`` alone, and at a port that
    the kernel chooses.

    torch by itself would let in whoever reaches any address of the machine. It has to, if ``host``
    is a name, which other nodes may resolve to another address than this one does, or an address
    that leads here through a router and is not this machine's.

    :raises OSError, DistError: the store cannot be hosted at ``host``.
    """
    listener = _listener(host)
    port = 0 if listener is None else listener.getsockname()[1]
    fd = None if listener is None else listener.detach()
    store = TCPStore(
        host,
        port,
        is_master=True,
        wait_for_workers=False,
        timeout=_OWN_CONNECTION,
        master_listen_fd=fd,
    )
    store.set_timeout(_REQUEST_TIMEOUT)
    return store


def _listener(host: str) -> socket.socket | None:
    """A socket that listens at the address ``host``; None if that is no address of this machine."""
    try:
        ipaddress.ip_address(host)
        return socket.create_server((host, 0), family=socket_family(host))
    except ValueError:
        return None
    except OSError as error:
        if error.errno == errno.EADDRNOTAVAIL:
            return None
        raise


def connect_to_store(host: str, port: int, seconds: float) -> TCPStore:
    """A client of the store at ``host``.

    :raises DistNetworkError: (torch's) nobody answered within so many ``seconds``.
    """
    timeout = timedelta(seconds=seconds)
    return TCPStore(host, port, is_master=False, wait_for_workers=False, timeout=timeout)
