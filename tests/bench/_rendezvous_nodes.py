"""The processes of the rendezvous benchmark: a node of ours, a node of stock torch's, and the store
of the latter.

Each is forked from a process that has torch but no grpc, connects to the benchmark's control
socket, says that it is ready when all its imports are done, and then does what it is told. All say
when something happened by ``time.monotonic()``, which is one clock for all processes of a host.
"""

from __future__ import annotations

import json
import os
import select
import socket
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

__all__ = ["ours", "stock", "stock_store"]

_HOST = "127.0.0.1"
_POLL = 0.1  # seconds between two looks of torch's agent, by default
_FOREVER = 3600.0


class _Control:
    """This process's end of the control socket."""

    def __init__(self, path: str, name: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._socket.connect(path)
        self._name = name

    def say(self, what: str, **more: Any) -> None:
        line = {
            "node": self._name,
            "what": what,
            "at": time.monotonic(),
            "cpu": time.process_time(),
            **more,
        }
        self._socket.send(json.dumps(line).encode())

    def hear(self, seconds: float = _FOREVER) -> str:
        """The next command; empty if none comes within so many seconds."""
        if not select.select([self._socket], [], [], seconds)[0]:
            return ""
        return self._socket.recv(64).decode() or "end"

    def fileno(self) -> int:
        return self._socket.fileno()


def ours(
    control: str,
    name: str,
    endpoint: str,
    run_id: str,
    low: int,
    high: int,
    backend: str = "etcd",
    guarded: bool = False,
    **times: float,
) -> None:
    """A node with our driver: what the launcher's agent has, without its workers. Changes come to
    it unasked.

    ``backend`` is what ``rdzv_backend`` would be. With "served", the first node serves
    the ledger too. ``guarded``: it has a guardian too, which knows how to end its lease.
    """
    from llutil.agent.event_loop import EventLoop
    from llutil.agent.guardian.client import Guardian
    from llutil.backends.table import BACKENDS
    from llutil.ledgers import Ledger
    from llutil.ledgers.open_ledger import ledger_opener
    from llutil.rendezvous.driver.driver import Driver
    from llutil.rendezvous.driver.round_store import RoundStore
    from llutil.rendezvous.protocol import instructions as do
    from llutil.rendezvous.protocol import observations as see
    from llutil.rendezvous.protocol.parameters import ProtocolParameters
    from llutil.rendezvous.protocol.record_keys import RecordKeys
    from llutil.rendezvous.protocol.records import Member

    rules = ProtocolParameters(min_nodes=low, max_nodes=high, **times)
    member = Member(node="", name=name, host="here", address=_HOST, role="worker", nproc=1)
    owner: list[Callable[[], None]] = []

    def tell_owner() -> None:
        for tell in owner:
            tell()

    def open_ledger(on_change: Callable[[], None]) -> Ledger:
        owner.append(on_change)
        return ledger

    server = _CountingServer(endpoint) if (backend, name) == ("served", "n0") else None
    # Stock's handler is connected to its store as soon as it is made. So is our ledger, before the
    # clock runs.
    ledger = ledger_opener(BACKENDS[backend], endpoint, {})(tell_owner)
    ledger.read("nothing", deadline=time.monotonic() + 60)
    driver = Driver(rules, member, RecordKeys(run_id), open_ledger, lambda: RoundStore(_HOST))
    guardian = Guardian(run_id, EventLoop()) if guarded else None
    wire = _Control(control, name)
    wire.say("ready")
    if wire.hear() == "begin":
        driver.start()
        while True:
            ready = select.select([wire, driver.change_fd], [], [], _FOREVER)[0]
            if guardian is not None:
                guardian.set_revocation(driver.revocation)
            for instruction in driver.take_instructions():
                match instruction:
                    case do.StartWorkers(assignment=assignment):
                        wire.say("round", size=len(assignment.seats))
                    case do.StopWorkers(stage=stage):
                        wire.say("over")
                        driver.tell(see.WorkersStopped(stage))
                    case do.Finish(end=end):
                        wire.say("finish", why=end.why)
            if wire in ready:
                told = wire.hear()
                if told == "end":
                    break
                if told == "count" and server is not None:
                    wire.say("count", requests=list(server.requests.values()))
    asked = see.EndRequested("the benchmark is over", stop=False)
    driver.leave(asked, time.monotonic() + 30)
    driver.close(time.monotonic() + 10)
    if guardian is not None:
        guardian.close()
    if server is not None:
        server.close()


class _CountingServer:
    """The server of the ledger, in a thread of its node. It counts what each client asks for,
    without renewals: time alone says how many there are.
    """

    def __init__(self, endpoint: str) -> None:
        from llutil.ledgers.served import server
        from llutil.ledgers.served.client_state import ClientState
        from llutil.ledgers.served.messages import KeepAlive, Renew, Request

        requests: Counter[ClientState] = Counter()

        class CountedClient(ClientState):
            def answer(self, request: Request) -> tuple[bytes, ...]:
                requests[self] += not isinstance(request.call, Renew | KeepAlive)
                return super().answer(request)

        server.ClientState = CountedClient  # type: ignore[misc]
        self.requests = requests
        self._server = server.LedgerServer(_HOST, int(endpoint.rpartition(":")[2]))

    def close(self) -> None:
        """Stop when the other nodes have left."""
        self._server.close(linger=30.0)


def stock(
    control: str, name: str, endpoint: str, run_id: str, low: int, high: int, **conf: Any
) -> None:
    """A node with torch's c10d handler, called as torch's agent does.

    ``watch``: ask about newcomers as often as torch's agent does, and join the next round when
    there are some. ``again``: join the next round at once, as when workers failed.
    """
    from torch.distributed.elastic.rendezvous import RendezvousParameters
    from torch.distributed.elastic.rendezvous.registry import get_rendezvous_handler

    handler = get_rendezvous_handler(
        RendezvousParameters(
            "c10d", endpoint, run_id, low, high, local_addr=_HOST, is_host=False, **conf
        )
    )
    wire = _Control(control, name)
    wire.say("ready")
    while (told := wire.hear()) != "end":
        if told == "watch":
            while not handler.num_nodes_waiting():
                time.sleep(_POLL)
            wire.say("over")
        try:
            info = handler.next_rendezvous()
        except Exception as error:
            wire.say("finish", why=repr(error))
            break
        wire.say("round", size=info.world_size)
    os._exit(0)  # its shutdown would take part in what is no part of the benchmark


def stock_store(control: str, name: str) -> None:
    """The TCPStore that stock nodes meet in."""
    from torch.distributed import TCPStore

    store = TCPStore(_HOST, 0, is_master=True, wait_for_workers=False)
    wire = _Control(control, name)
    wire.say("ready", port=store.port)
    wire.hear()
