"""A c10d rendezvous at a store that one node of the job hosts itself, for where there is no store beside the nodes.

The host binds torch's ``TCPStore`` to its own address, on a port that the kernel chose, and opens a door beside it
(``llutil.door``); the others, its guests, know the door's address and secret, and knock before they use the store.
torch's own handler agrees there on who is in a round. What it leaves to chance is added, in the same store:

* ranks follow the nodes' preferred index, and each round has a fresh store for its workers;
* who succeeded says so and waits, without a timer, and runs again if another one must: no exit barrier;
* the first failure is told to all, and so is that the host goes;
* a node that gives no sign of life for a while is given up, also where its workers' peers notice nothing.

Everything is asked about once a ``look``, as often as the agent looks. This module imports torch.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from torch.distributed import DistError, PrefixStore, TCPStore
from torch.distributed.elastic.rendezvous import (
    RendezvousClosedError,
    RendezvousConnectionError,
    RendezvousHandler,
    RendezvousInfo,
    RendezvousParameters,
    RendezvousStoreInfo,
)
from torch.distributed.elastic.rendezvous import RendezvousError as TorchRendezvousError
from torch.distributed.elastic.rendezvous.c10d_rendezvous_backend import C10dRendezvousBackend
from torch.distributed.elastic.rendezvous.dynamic_rendezvous import create_handler

from llutil.addressing import bracketed, family_of, local_address
from llutil.door import Door, Visit, WrongDoorError, knock
from llutil.errors import RendezvousError
from llutil.rendezvous import codec
from llutil.rendezvous.c10d import sharing_off
from llutil.rendezvous.hosting import HostedStore
from llutil.rendezvous.records import Report

__all__ = ["HostedRendezvous", "JobFailed", "Place"]

_log = logging.getLogger(__name__)

_KNOCK = 5.0  # seconds for a door to answer
_ANSWER = timedelta(seconds=20)  # for the store to answer anything at all
_SEATED = 30.0  # seconds for all nodes of a round to say who they are
_LOOK = 0.05  # seconds between two looks while nodes sit down
_FAREWELL = (
    10.0  # seconds that the host stays for guests that have not heard the end of the job yet
)
_OUTCOME, _ALL, _AGAIN = "llutil/outcome", b"all succeeded", b"all start again"
_ECHO = 3.0  # seconds in which the cause of a failure that is only an echo is told


class JobFailed(Exception):
    """The job has failed on another node, as ``report`` says."""

    def __init__(self, report: Report) -> None:
        super().__init__(report.why)
        self.report = report


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where the store is and who this node is. ``port`` is the door's, and 0 for the host, who finds one."""

    host: str
    port: int
    secret: str
    hosts: bool
    local_addr: str | None
    index: int | None
    label: str


@dataclass(frozen=True, slots=True)
class _Seat:
    """A node in a round, by its rank in torch's order: what it says of itself."""

    index: int | None
    label: str
    address: str
    host: str

    def name(self, rank: int) -> str:
        return f"{self.label or f'node {rank}'} on {self.host}"


class HostedRendezvous(RendezvousHandler):
    """torch's rendezvous interface, and what an agent wants to know besides. ``endpoint`` is the door's.

    :raises RendezvousError: this node cannot host, or the host is not there.
    """

    def __init__(self, place: Place, parameters: RendezvousParameters) -> None:
        self._place = place
        self._door: Door | None = None
        self._visit: Visit | None = None
        try:
            if place.hosts:
                self._address = place.host
                self._store = self._host()
            else:
                self._store = self._be_guest()
                self._address = place.local_addr or local_address(place.host, place.port)
            parameters.local_addr = self._address
            self._silent = _silence(parameters)
            with self._speaking():
                self._inner = create_handler(
                    self._store, C10dRendezvousBackend(self._store, parameters.run_id), parameters
                )
        except BaseException:
            self._close()
            raise
        self._hosted: HostedStore | None = None
        self._round: PrefixStore | None = None
        self._rank = 0
        self._seats: list[_Seat] = []
        self._signs: dict[int, tuple[int, float]] = {}
        self._succeeded = False

    # What torch's interface asks for.

    @property
    def use_agent_store(self) -> bool:
        """Workers connect to the store that the first node of the round serves."""
        return True

    def get_backend(self) -> str:
        """The backend's name."""
        return "c10d"

    def get_run_id(self) -> str:
        """The job's run id."""
        return str(self._inner.get_run_id())

    def next_rendezvous(self) -> RendezvousInfo:
        """Wait for the next round.

        :raises JobFailed: there is none: the job has failed meanwhile.
        :raises RendezvousError: (torch's) it did not form; (ours) the host has gone.
        """
        with self._speaking():
            if self._round is not None:
                self._settle(self._round, _AGAIN)
            try:
                with sharing_off():
                    info = self._inner.next_rendezvous()
            except RendezvousClosedError:
                if self._round is not None:
                    self._check_failure()
                raise RendezvousError(
                    f"the job whose store {self._whose} is over; wanted one that goes on"
                ) from None
            return self._sit_down(info)

    def num_nodes_waiting(self) -> int:
        """How many nodes wait for the next round, if it is to come; gives a sign of life, and looks for the others'.

        Not when somebody has succeeded already: then only one that was in the round, and must run again, counts.

        :raises JobFailed: the job has failed on another node.
        :raises RendezvousError: the host has gone.
        """
        with self._speaking():
            self._check_failure()
            if self._round is None:
                return 0
            self._round.add(_sign(self._rank), 1)
            self._give_up_the_silent()
            if self._round.check([_OUTCOME]):
                return int(self._round.get(_OUTCOME) == _AGAIN)
            waiting = int(self._inner.num_nodes_waiting())
            return 0 if self._round.add("llutil/succeeded", 0) else waiting

    def is_closed(self) -> bool:
        """Whether the job is over."""
        return bool(self._inner.is_closed())

    def set_closed(self) -> None:
        """The job is over."""
        self._inner.set_closed()

    def shutdown(self) -> bool:
        """This node is done. The host ends the job for whoever would still come, and stays until its guests are gone."""
        if self._hosted is not None:
            self._hosted.close()
        closed = True
        if self._door is not None:
            closed = bool(self._inner.shutdown())
            until = time.monotonic() + _FAREWELL
            while self._door.visitors and time.monotonic() < until:
                time.sleep(_LOOK)
        self._close()
        return closed

    # What an agent wants besides.

    @property
    def endpoint(self) -> str:
        """The door's address."""
        return bracketed(self._place.host, self._door.port if self._door else self._place.port)

    @property
    def hosts(self) -> bool:
        """Whether the store is this node's."""
        return self._place.hosts

    def succeed(self) -> None:
        """All ranks of this node have succeeded."""
        assert self._round is not None
        with self._speaking():
            self._round.add("llutil/succeeded", 1)
            self._succeeded = True

    def all_succeeded(self) -> bool:
        """Whether all nodes of the round have. Call ``num_nodes_waiting`` first: it sees who is silent.

        :raises RendezvousError: the host has gone.
        """
        assert self._round is not None
        with self._speaking():
            if self._round.add("llutil/succeeded", 0) < len(self._seats):
                return False
            return self._settle(self._round, _ALL) == _ALL

    def fail(self, report: Report) -> Report:
        """The job has failed here; the first failure of the whole job, which may be another node's.

        One that is only an echo of what happened elsewhere waits a little for what that was.
        """
        patient = report.failure is not None and report.failure.echo
        until = time.monotonic() + (_ECHO if patient else 0.0)
        text = codec.encode(report).decode()
        try:
            while time.monotonic() < until and not self._store.check(["llutil/failure"]):
                time.sleep(_LOOK)
            first = self._store.compare_set("llutil/failure", "", text)
            self._inner.set_closed()  # so that nobody waits for another round
        except (DistError, TorchRendezvousError):
            return report  # the store is gone: this is all that is known here
        return codec.decode_as(Report, "llutil/failure", first)

    def abandon(self) -> None:
        """This node has been told to stop. If it hosts, nobody is let in any more, and its guests see that it goes."""
        if self._door is not None:
            self._door.close()

    @property
    def label(self) -> str:
        """What people call this node."""
        return self._place.label

    # How it is done.

    @property
    def _whose(self) -> str:
        if self._place.hosts:
            return "this node hosts"
        return f"node 0 hosts behind {bracketed(self._place.host, self._place.port)}"

    def _host(self) -> TCPStore:
        place = self._place
        listener = None
        try:
            listener = socket.create_server((place.host, 0), family=family_of(place.host))
            port = listener.getsockname()[1]
            store = TCPStore(
                place.host,
                port,
                is_master=True,
                wait_for_workers=False,
                timeout=_ANSWER,
                master_listen_fd=listener.detach(),  # else torch would listen on every address
            )
            self._door = Door(place.host, place.secret, port)
        except (OSError, DistError) as error:
            raise RendezvousError(
                f"this node cannot host the job's store at its own address {place.host!r}: {error}; give local_addr "
                "an address that leads to this node"
            ) from error
        finally:
            if listener is not None:
                listener.close()
        return store

    def _be_guest(self) -> TCPStore:
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
            raise RendezvousError(f"nobody is there whose store {self._whose}: {error}") from error
        _limit_silence(self._visit.store_port, _ANSWER.total_seconds())
        return store

    def _close(self) -> None:
        if self._door is not None:
            self._door.close()
        if self._visit is not None:
            self._visit.close()

    def _sit_down(self, info: RendezvousInfo) -> RendezvousInfo:
        """The round in our order of ranks, with a store of its own."""
        if self._hosted is not None:
            self._hosted.close()
            self._hosted = None
        store = info.store
        seat = _Seat(self._place.index, self._place.label, self._address, socket.gethostname())
        store.set(
            f"llutil/seat/{info.rank}", json.dumps([getattr(seat, name) for name in seat.__slots__])
        )
        keys = [f"llutil/seat/{rank}" for rank in range(info.world_size)]
        self._await(store, keys, "said who they are")
        seats = [_Seat(*json.loads(value)) for value in store.multi_get(keys)]
        order = seated(seats)
        self._seats = [seats[rank] for rank in order]
        self._rank = order.index(info.rank)
        self._round, self._succeeded = store, False
        self._signs = {}
        store.add(_sign(self._rank), 1)
        if self._rank == 0:
            self._hosted = HostedStore(self._address)
            store.set("llutil/store", str(self._hosted.port))
        self._await(store, ["llutil/store"], "said where its store is")
        address = RendezvousStoreInfo(self._seats[0].address, int(store.get("llutil/store")))
        return RendezvousInfo(store, self._rank, info.world_size, address)

    def _await(self, store: PrefixStore, keys: list[str], what: str) -> None:
        until = time.monotonic() + _SEATED
        while not store.check(keys):
            self._check_host()
            if time.monotonic() > until:
                away = [key for key in keys if not store.check([key])]
                raise RendezvousError(
                    f"{len(away)} of {len(keys)} nodes of the round have not {what} for {_SEATED:g} s"
                )
            time.sleep(_LOOK)

    def _give_up_the_silent(self) -> None:
        """End the round if one of its nodes gave no sign of life for long. The first node sees to it, and who waits."""
        assert self._round is not None
        if self._rank != 0 and not self._succeeded:
            return
        now = time.monotonic()
        for rank, seat in enumerate(self._seats):
            if rank == self._rank:
                continue
            sign = self._round.add(_sign(rank), 0)
            before, since = self._signs.get(rank, (-1, now))
            self._signs[rank] = (sign, since if sign == before else now)
            if now - self._signs[rank][1] > self._silent and not self._round.check(
                ["llutil/again"]
            ):
                _log.warning(
                    "%s gave no sign of life for %g s; the round ends",
                    seat.name(rank),
                    self._silent,
                )
                self._settle(self._round, _AGAIN)

    @staticmethod
    def _settle(store: PrefixStore, outcome: bytes) -> bytes:
        """How the round ends, which is settled once: as ``outcome``, unless it was settled before."""
        settled: bytes = store.compare_set(_OUTCOME, "", outcome.decode())
        return settled

    def _check_failure(self) -> None:
        if self._store.check(["llutil/failure"]):
            told = self._store.get("llutil/failure")
            raise JobFailed(codec.decode_as(Report, "llutil/failure", told))

    def _check_host(self) -> None:
        if self._visit is not None and self._visit.over:
            raise RendezvousError(self._lost())

    def _lost(self) -> str:
        place = bracketed(self._place.host, self._place.port)
        return (
            f"node 0, which hosts the job's store at {place}, is gone: its task was ended, or its agent, or its host "
            "was lost. The other nodes cannot go on without it"
        )

    @contextmanager
    def _speaking(self) -> Iterator[None]:
        """Ask the store something; its loss is the host's."""
        self._check_host()
        try:
            yield
        except (RendezvousConnectionError, DistError) as error:
            if self._place.hosts:
                raise RendezvousError(f"the store that this node hosts failed: {error}") from error
            raise RendezvousError(self._lost()) from error


def seated(seats: list[_Seat]) -> list[int]:
    """torch's ranks of the nodes in our order: by preferred index, and those that have none after the others."""
    return sorted(
        range(len(seats)),
        key=lambda rank: (seats[rank].index is None, seats[rank].index or 0, rank),
    )


def _silence(parameters: RendezvousParameters) -> float:
    """Seconds without a sign of life after which a node is given up: the same in which torch's handler does."""
    interval = parameters.get_as_int("keep_alive_interval", 5)
    attempts = parameters.get_as_int("keep_alive_max_attempt", 3)
    return max(3.0, float((interval or 5) * (attempts or 3)))


def _sign(rank: int) -> str:
    return f"llutil/sign/{rank}"


def _limit_silence(port: int, seconds: float) -> None:
    """Have the kernel end this process' connections to the store when its host is gone without a word.

    torch waits for some answers in C++ without a limit, where no signal is heard (2.13), and has no option for that.
    """
    for entry in list(Path("/proc/self/fd").iterdir()):
        with suppress(OSError):  # closed meanwhile, or no connection
            if not entry.readlink().name.startswith("socket:"):
                continue
            with socket.socket(fileno=os.dup(int(entry.name))) as one:
                internet = one.family in {socket.AF_INET, socket.AF_INET6}
                if internet and one.type == socket.SOCK_STREAM and one.getpeername()[1] == port:
                    one.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(1000 * seconds))
