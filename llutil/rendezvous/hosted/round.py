"""One round at a store that a node hosts: who sits where, who has succeeded, and how the round
ends.

torch's handler has agreed on who is in the round, and gives it a part of the store of its own; all
that is here is written there. Ranks follow the nodes' preferred index, and the round has a fresh
store for its workers. How it ends is settled once, for all its nodes: all have succeeded, or all
start again. This module imports torch.
"""

from __future__ import annotations

import json
import logging
import socket
import time
from dataclasses import dataclass

from torch.distributed import PrefixStore
from torch.distributed.elastic.rendezvous import RendezvousInfo, RendezvousStoreInfo

from llutil.errors import RendezvousError
from llutil.rendezvous.driver.round_store import RoundStore
from llutil.rendezvous.hosted.node_store import HostedStore, StoreAddress

__all__ = ["HostedNode", "HostedRound", "seated"]

_log = logging.getLogger(__name__)

_PATIENCE = 30.0  # seconds for all nodes of a round to say who they are
_LOOK = 0.05  # seconds between two looks while nodes sit down
_OUTCOME, _ALL, _AGAIN = "llutil/outcome", b"all succeeded", b"all start again"
_SUCCEEDED = "llutil/succeeded"


@dataclass(frozen=True, slots=True)
class HostedNode:
    """A node in a round: what it says of itself."""

    index: int | None
    label: str
    address: str
    host: str

    def name(self, rank: int) -> str:
        """What to call it, at that rank."""
        return f"{self.label or f'node {rank}'} on {self.host}"


class HostedRound:
    """A round of which this node is a part; ``info`` is what torch's handler said of it. Close it.

    ``silence``: seconds without a sign of life after which a node is given up.

    :raises RendezvousError: another node of the round did not sit down, or the host has gone.
    """

    def __init__(
        self, info: RendezvousInfo, place: StoreAddress, node_store: HostedStore, silence: float
    ) -> None:
        self._store: PrefixStore = info.store
        self._node_store = node_store
        self._silence = silence
        self._succeeded = False
        self._hosted: RoundStore | None = None
        own = HostedNode(place.index, place.label, node_store.address, socket.gethostname())
        seats = self._introduce(own, info.rank, info.world_size)
        order = seated(seats)
        self._seats = [seats[rank] for rank in order]
        self._rank = order.index(info.rank)
        self._signs: dict[int, tuple[int, float]] = {}
        self.give_sign()
        try:
            address = self._meeting_place(own.address)
        except BaseException:
            self.close()
            raise
        self.info = RendezvousInfo(self._store, self._rank, info.world_size, address)

    def close(self) -> None:
        """Stop serving the workers' store, if this node does."""
        if self._hosted is not None:
            self._hosted.close()
            self._hosted = None

    def give_sign(self) -> None:
        """This node lives."""
        self._store.add(_sign(self._rank), 1)

    def succeed(self) -> None:
        """All ranks of this node have succeeded."""
        self._store.add(_SUCCEEDED, 1)
        self._succeeded = True

    @property
    def anybody_succeeded(self) -> bool:
        """Whether some node has: then nobody new comes in."""
        return bool(self._store.add(_SUCCEEDED, 0))

    def all_succeeded(self) -> bool:
        """Whether all nodes have; then that is how the round ends."""
        if self._store.add(_SUCCEEDED, 0) < len(self._seats):
            return False
        return self._settle(_ALL) == _ALL

    def start_again(self) -> None:
        """End the round, unless it has ended."""
        self._settle(_AGAIN)

    @property
    def settled(self) -> bool:
        """Whether it is decided how the round ends."""
        return bool(self._store.check([_OUTCOME]))

    @property
    def starts_again(self) -> bool:
        """Whether the round has ended, and its nodes start again."""
        return self.settled and self._store.get(_OUTCOME) == _AGAIN

    def give_up_the_silent(self) -> None:
        """End the round if one of its nodes gave no sign of life for long. The first node sees to
        it, and who waits.
        """
        if (self._rank != 0 and not self._succeeded) or self.settled:
            return
        now = time.monotonic()
        for rank, seat in enumerate(self._seats):
            if rank == self._rank:
                continue
            sign = self._store.add(_sign(rank), 0)
            before, since = self._signs.get(rank, (-1, now))
            self._signs[rank] = (sign, since if sign == before else now)
            if now - self._signs[rank][1] > self._silence:
                _log.warning(
                    "%s gave no sign of life for %g s; the round ends",
                    seat.name(rank),
                    self._silence,
                )
                self.start_again()
                return

    def _meeting_place(self, own_address: str) -> RendezvousStoreInfo:
        """Where the round's workers have their store: the first node opens it, and tells the
        others.
        """
        if self._rank == 0:
            self._hosted = RoundStore(own_address)
            self._store.set("llutil/store", str(self._hosted.port))
        self._await(["llutil/store"], "said where its store is")
        port = int(self._store.get("llutil/store"))
        return RendezvousStoreInfo(self._seats[0].address, port)

    def _introduce(self, own: HostedNode, rank: int, count: int) -> list[HostedNode]:
        """All nodes' seats, by torch's rank."""
        said = json.dumps([getattr(own, name) for name in own.__slots__])
        self._store.set(f"llutil/seat/{rank}", said)
        keys = [f"llutil/seat/{rank}" for rank in range(count)]
        self._await(keys, "said who they are")
        return [HostedNode(*json.loads(value)) for value in self._store.multi_get(keys)]

    def _await(self, keys: list[str], what: str) -> None:
        until = time.monotonic() + _PATIENCE
        while not self._store.check(keys):
            self._node_store.check()
            if time.monotonic() > until:
                away = [key for key in keys if not self._store.check([key])]
                raise RendezvousError(
                    f"{len(away)} of {len(keys)} nodes of the round have not {what} for "
                    f"{_PATIENCE:g} s"
                )
            time.sleep(_LOOK)

    def _settle(self, outcome: bytes) -> bytes:
        """How the round ends, which is settled once: as ``outcome``, unless it was settled
        before.
        """
        settled: bytes = self._store.compare_set(_OUTCOME, "", outcome.decode())
        return settled


def seated(seats: list[HostedNode]) -> list[int]:
    """torch's ranks of the nodes in our order: by preferred index, and those that have none after
    the others.
    """
    return sorted(
        range(len(seats)),
        key=lambda rank: (seats[rank].index is None, seats[rank].index or 0, rank),
    )


def _sign(rank: int) -> str:
    return f"llutil/sign/{rank}"
