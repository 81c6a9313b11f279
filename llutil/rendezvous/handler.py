"""torch's ``RendezvousHandler`` on top of the driver, for agents that know nothing of ledgers.

torch's interface has no way to report how a round went, so only what it can express is served: a round's members,
that something has changed (``num_nodes_waiting``), and leaving. The launcher's own agent uses ``Driver`` itself; a
plain torchrun gets this handler, through the entry points. The restart budget is then torch's, one for each agent.
"""

from __future__ import annotations

import select
import time
from collections.abc import Callable
from datetime import timedelta

from torch.distributed import PrefixStore
from torch.distributed.elastic.rendezvous import (
    RendezvousClosedError,
    RendezvousHandler,
    RendezvousInfo,
    RendezvousStateError,
    RendezvousStoreInfo,
    RendezvousTimeoutError,
)

from llutil.rendezvous import instructions as do
from llutil.rendezvous import observations as see
from llutil.rendezvous.driver import Driver
from llutil.rendezvous.hosting import connect
from llutil.rendezvous.records import Assignment

__all__ = ["LedgerRendezvous"]

_STORE_TIMEOUT = timedelta(minutes=5)
_LINGER = 5.0  # seconds that the leader of a torchrun job waits for the others to leave, to write the marker
_LEAVE = 30.0  # seconds that leaving may take in all


class LedgerRendezvous(RendezvousHandler):
    """One node's rendezvous. ``driver`` is called for a new driver when the first round is asked for."""

    def __init__(self, backend: str, run_id: str, driver: Callable[[], Driver]) -> None:
        self._backend = backend
        self._run_id = run_id
        self._new_driver = driver
        self._driver: Driver | None = None
        self._round: Assignment | None = None
        self._stopped = False
        self._end: do.End | None = None

    @property
    def use_agent_store(self) -> bool:
        """Workers use the round's store, which the leader's process hosts."""
        return True

    def get_backend(self) -> str:
        """The backend's name."""
        return self._backend

    def get_run_id(self) -> str:
        """The job's run id."""
        return self._run_id

    def next_rendezvous(self) -> RendezvousInfo:
        """Leave the round that this node was in, and wait for the next one.

        :raises RendezvousTimeoutError: no round began in time.
        :raises RendezvousClosedError: the job has ended, or this node was asked to leave it.
        :raises RendezvousStateError: the nodes' configurations do not fit together.
        """
        if self._driver is None:
            self._driver = self._new_driver()
            self._driver.start()
        driver = self._driver
        if self._round is not None:
            stage, self._round = self._round.stage, None
            if self._stopped:
                driver.tell(see.WorkersStopped(stage))
            else:
                # torch's agent restarts for a failure, or because it thinks that it should: to the others it is one.
                driver.tell(
                    see.WorkersEnded(stage, succeeded=False, why="its agent restarts its workers")
                )
        self._stopped = False
        while self._round is None:
            self._raise_if_ended()
            select.select(
                [driver.change_fd], [], [], 60.0
            )  # the machine's own deadlines end the wait
            self._take_orders(driver)
        return self._info(driver)

    def num_nodes_waiting(self) -> int:
        """1 if the round is over for this node: another came, or one was lost; torch's agent then restarts."""
        if self._driver is not None:
            self._take_orders(self._driver)
        return int(self._stopped)

    def is_closed(self) -> bool:
        """Whether this node's part is over."""
        return self._end is not None

    def set_closed(self) -> None:
        """Ask the whole job to stop."""
        if self._driver is not None:
            self._driver.tell(see.Asked("the rendezvous was closed", stop=True))

    def shutdown(self) -> bool:
        """Leave. The last node to do so writes the generation's marker; a run id can be used again at once."""
        driver = self._driver
        if driver is None:
            return True
        driver.tell(see.Asked("the agent shut its rendezvous down", stop=False, linger=_LINGER))
        if self._round is not None:
            driver.tell(see.WorkersStopped(self._round.stage))
        return driver.join(time.monotonic() + _LEAVE)

    def _take_orders(self, driver: Driver) -> None:
        for order in driver.orders():
            match order:
                case do.StartWorkers(assignment=assignment):
                    self._round, self._node = assignment, order.node
                case do.StopWorkers():
                    self._stopped = True
                case do.Finish(end=end):
                    self._end = end

    def _raise_if_ended(self) -> None:
        match self._end:
            case None:
                return
            case do.GaveUp(why=why):
                raise RendezvousTimeoutError(why)
            case do.Refused(why=why):
                raise RendezvousStateError(why)
            case end:
                raise RendezvousClosedError(f"run {self._run_id!r}: {end.why}")

    def _info(self, driver: Driver) -> RendezvousInfo:
        del driver
        assignment = self._round
        assert assignment is not None
        place = assignment.place(self._node)
        store = connect(assignment.host, assignment.port)
        store.set_timeout(_STORE_TIMEOUT)
        return RendezvousInfo(
            store=PrefixStore(f"agents/{assignment.generation}.{assignment.round}", store),
            rank=place.group_rank,
            world_size=place.group_world_size,
            bootstrap_store_info=RendezvousStoreInfo(assignment.host, assignment.port),
        )
