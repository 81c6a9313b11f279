"""Where the store is that one node of a job hosts itself, and the way into it: by the host's door,
or as the host.

The host binds torch's ``TCPStore`` to its own address, on a port that the kernel chose, and opens a
door beside it (``llutil.rendezvous.hosted.store_handshake``); the others, its guests, know the
door's address and secret, and knock before they use the store. What the nodes write there is none
of this module's business. It imports torch.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

from torch.distributed import DistError, TCPStore
from torch.distributed.elastic.rendezvous import RendezvousConnectionError

from llutil.errors import RendezvousError, ServerLostError
from llutil.rendezvous.driver.round_store import host_store, hosting_problem
from llutil.rendezvous.hosted.store_handshake import Door, Visit, WrongDoorError, knock
from llutil.system.addresses import host_and_port, local_address

__all__ = ["HostedStore", "StoreAddress"]

_KNOCK = 5.0  # seconds for a door to answer
_ANSWER = timedelta(seconds=20)  # for the store to answer anything at all
_LOOK = 0.05  # seconds between two looks at who is still here
_FAREWELL = 10.0  # seconds that the host stays for guests that have not heard the end of the job


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreAddress:
    """Where the store is and who this node is. ``port`` is the door's, and 0 for the host, who
    finds one.
    """

    host: str
    port: int
    secret: str = field(repr=False)
    hosts: bool
    local_addr: str | None
    index: int | None
    label: str


class HostedStore:
    """The job's ``store``, as this node has it: its own, or the host's. ``address`` is this node's
    own.

    :raises RendezvousError: this node cannot host.
    :raises ServerLostError: the host is not there.
    """

    def __init__(self, place: StoreAddress) -> None:
        self._place = place
        self._door: Door | None = None
        self._visit: Visit | None = None
        try:
            self.store = self._open() if place.hosts else self._enter()
            self.address = (
                place.host
                if place.hosts
                else place.local_addr or local_address(place.host, place.port)
            )
        except BaseException:
            self.close()
            raise

    @property
    def endpoint(self) -> str:
        """The door's address."""
        return host_and_port(self._place.host, self._door.port if self._door else self._place.port)

    @property
    def whose(self) -> str:
        """Who hosts the store, in words."""
        if self._place.hosts:
            return "this node hosts"
        return f"node 0 hosts behind {self.endpoint}"

    @contextmanager
    def speaking(self) -> Iterator[None]:
        """Ask the store something within.

        :raises ServerLostError: it is gone, and with it the host.
        :raises RendezvousError: this node hosts it, and it failed.
        """
        self.check()
        try:
            yield
        except (RendezvousConnectionError, DistError) as error:
            if self._place.hosts:
                raise RendezvousError(f"the store that this node hosts failed: {error}") from error
            raise ServerLostError(self._lost()) from error

    def check(self) -> None:
        """Nothing, as long as the host is there.

        :raises ServerLostError: it has gone.
        """
        if self._visit is not None and self._visit.over:
            raise ServerLostError(self._lost())

    def shut_out(self) -> None:
        """If this node hosts: let nobody in any more, and have the guests see that it goes."""
        if self._door is not None:
            self._door.close()

    def see_off(self) -> None:
        """If this node hosts: stay until the guests are gone, for some time."""
        if self._door is not None:
            until = time.monotonic() + _FAREWELL
            while self._door.visitors and time.monotonic() < until:
                time.sleep(_LOOK)

    def close(self) -> None:
        """Shut the door, or go out of it."""
        if self._door is not None:
            self._door.close()
        if self._visit is not None:
            self._visit.close()

    def _open(self) -> TCPStore:
        place = self._place
        try:
            store = host_store(place.host)
            self._door = Door(place.host, place.secret, store.port)
        except (OSError, DistError) as error:
            raise RendezvousError(
                f"this node cannot host the job's store at its own address {place.host!r}: "
                f"{hosting_problem(error)}, or set local_addr to an address at which this node can "
                "be reached"
            ) from error
        store.set_timeout(_ANSWER)
        return store

    def _enter(self) -> TCPStore:
        place = self._place
        try:
            self._visit = knock(place.host, place.port, place.secret, _KNOCK)
            store = TCPStore(
                place.host,
                self._visit.store_port,
                is_master=False,
                wait_for_workers=False,
                timeout=_ANSWER,
            )
        except (OSError, WrongDoorError, DistError) as error:
            raise ServerLostError(f"nobody is there whose store {self.whose}: {error}") from error
        _limit_silence(place.host, self._visit.store_port, _ANSWER.total_seconds())
        return store

    def _lost(self) -> str:
        return (
            f"node 0, which hosts the job's store at {self.endpoint}, is gone: its task was "
            "ended, or its agent, or its "
            "host was lost. The other nodes cannot go on without it"
        )


def _limit_silence(host: str, port: int, seconds: float) -> None:
    """Have the kernel end this process' connections to the store at ``host`` when that is gone
    without a word.

    torch waits for some answers in C++ without a limit, where no signal is heard (2.13), and has no
    option for that.
    """
    addresses = {_plain(str(found[4][0])) for found in socket.getaddrinfo(host, port)}
    for entry in list(Path("/proc/self/fd").iterdir()):
        with suppress(OSError):  # closed meanwhile, or no connection
            if not entry.readlink().name.startswith("socket:"):
                continue
            with socket.socket(fileno=os.dup(int(entry.name))) as one:
                if one.family not in {socket.AF_INET, socket.AF_INET6}:
                    continue
                if one.type != socket.SOCK_STREAM:
                    continue
                address, its_port, *_ = one.getpeername()
                if its_port == port and _plain(address) in addresses:
                    one.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(1000 * seconds))


def _plain(address: str) -> str:
    """``address`` as IPv4 if it is one that an IPv6 socket has: torch's sockets are of IPv6."""
    return address.removeprefix("::ffff:")
