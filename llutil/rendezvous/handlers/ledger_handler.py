"""torch's ``RendezvousHandler`` on top of the driver, for agents that know nothing of ledgers.

torch's interface has no way to report how a round went, so only what it can express is served: a
round's members, that something has changed (``num_nodes_waiting``), and leaving. The launcher's own
agent uses ``Driver`` itself; a plain torchrun gets this handler, through the entry points. The
restart budget is then torch's, one for each agent.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import timedelta

from torch.distributed import DistError, PrefixStore, TCPStore
from torch.distributed.elastic.rendezvous import (
    RendezvousClosedError,
    RendezvousConnectionError,
    RendezvousHandler,
    RendezvousInfo,
    RendezvousStateError,
    RendezvousStoreInfo,
    RendezvousTimeoutError,
)

from llutil.errors import ConfigError, LaunchError
from llutil.failure import JobFailure
from llutil.rendezvous.driver.driver import Driver
from llutil.rendezvous.driver.round_store import connect
from llutil.rendezvous.protocol import instructions as do
from llutil.rendezvous.protocol import observations as see
from llutil.rendezvous.protocol.records import Assignment, Stage
from llutil.time_budgets import LEDGER_CLOSED

__all__ = ["LedgerRendezvous"]

_STORE_TIMEOUT = timedelta(minutes=5)
_PATIENCE = 60.0  # seconds of one wait; how long to wait in all is the machine's to say
_CONNECT = 60.0  # seconds for a round's store to be reached
# Seconds of one attempt at that, after which it is looked whether the round is over already.
_ATTEMPT = 5.0
# Seconds that the leader of a torchrun job waits for the others to leave, to write the marker.
_LINGER = 5.0
_LEAVE = 30.0  # seconds that leaving may take in all


class LedgerRendezvous(RendezvousHandler):
    """One node's rendezvous. ``driver`` is called for a new driver when the first round is asked
    for.

    Used by one thread, as torch's agent does.
    """

    def __init__(self, backend: str, run_id: str, driver: Callable[[], Driver]) -> None:
        self._backend = backend
        self._run_id = run_id
        self._new_driver = driver
        self._driver: Driver | None = None
        self._running: Stage | None = None
        """The round that the agent was given, until it asks for the next."""
        self._next: tuple[Assignment, str] | None = None
        """A round that was sealed and not given to the agent yet, and who this node is in it."""
        self._over = False
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
        :raises RendezvousClosedError: the job has ended, or this node has left it.
        :raises RendezvousStateError: the nodes' configurations, or the store's records, do not fit
            together.
        :raises RendezvousConnectionError: the store refuses us, or the round's own store cannot be
            reached.
        """
        if self._driver is None:
            self._driver = self._new_driver()
            self._driver.start()
        driver = self._driver
        if self._running is not None:
            # torch's agent restarts for a failure, or because it thinks that it should: to the
            # others it is one.
            self._end_round(driver, "its agent restarts its workers")
        while True:
            assignment, node = self._await_round(driver)
            self._running = assignment.stage
            store = self._connect(driver, assignment)
            if store is not None:
                return _info(assignment, node, store)
            self._end_round(driver, "the round's store could not be reached")

    def _end_round(self, driver: Driver, why: str) -> None:
        """This node's workers of the round that it was in are gone, if there were any."""
        stage, over = self._running, self._over
        assert stage is not None
        self._running, self._over = None, False
        if over:
            driver.tell(see.WorkersStopped(stage))
        else:
            driver.tell(see.WorkersEnded(stage, JobFailure(why=why)))

    def _await_round(self, driver: Driver) -> tuple[Assignment, str]:
        while True:
            self._take_orders(driver)
            self._raise_if_ended()
            if self._next is not None:
                found, self._next = self._next, None
                return found
            driver.wait(time.monotonic() + _PATIENCE)

    def _connect(self, driver: Driver, assignment: Assignment) -> TCPStore | None:
        """A client of the round's store; None if the round was over before it could be reached."""
        deadline = time.monotonic() + _CONNECT
        while True:
            try:
                return connect(assignment.host, assignment.port, _ATTEMPT)
            except DistError as error:
                self._take_orders(driver)
                if self._over:
                    return None
                if time.monotonic() >= deadline:
                    raise RendezvousConnectionError(
                        f"the store of {assignment.stage}, which {assignment.by} hosts at "
                        f"{assignment.host}, port "
                        f"{assignment.port}, cannot be reached: {error}"
                    ) from error

    def num_nodes_waiting(self) -> int:
        """1 if the round is over for this node: another came, or one was lost; torch's agent then
        restarts.
        """
        if self._driver is not None and self._end is None:
            self._take_orders(self._driver)
        return int(self._over)

    def is_closed(self) -> bool:
        """Whether this node's part is over."""
        return self._end is not None

    def set_closed(self) -> None:
        """Ask the whole job to stop."""
        if self._driver is not None:
            self._driver.tell(see.Asked("the rendezvous was closed", stop=True))

    def shutdown(self) -> bool:
        """Leave. The last node to do so writes the generation's marker; a run id can be used again
        at once.
        """
        driver = self._driver
        if driver is None:
            return True
        asked = see.Asked("the agent shut its rendezvous down", stop=False, linger=_LINGER)
        left = driver.leave(asked, time.monotonic() + _LEAVE)
        self._end = self._end or do.Left(asked.why)
        return driver.close(time.monotonic() + LEDGER_CLOSED) and left

    def _take_orders(self, driver: Driver) -> None:
        try:
            orders = driver.orders()
        except ConfigError as error:
            raise RendezvousStateError(str(error)) from error
        except LaunchError as error:
            raise RendezvousConnectionError(str(error)) from error
        for order in orders:
            match order:
                case do.StartWorkers(assignment=assignment, node=node):
                    self._next = (assignment, node)
                case do.StopWorkers(stage=stage) if stage == self._running:
                    self._over = True
                case do.StopWorkers(stage=stage):
                    # The agent has no workers of that round: it never heard of it, or has ended
                    # them already.
                    self._next = None
                    driver.tell(see.WorkersStopped(stage))
                case do.Finish(end=end):
                    self._end = end

    def _raise_if_ended(self) -> None:
        run = f"run {self._run_id!r}"
        match self._end:
            case None:
                return
            case do.GaveUp(why=why):
                raise RendezvousTimeoutError(f"{run}: {why}")
            case do.Refused(why=why):
                raise RendezvousStateError(f"{run}: {why}")
            case end:
                raise RendezvousClosedError(f"{run}: {end.why}")


def _info(assignment: Assignment, node: str, store: TCPStore) -> RendezvousInfo:
    place = assignment.place(node)
    store.set_timeout(_STORE_TIMEOUT)
    return RendezvousInfo(
        store=PrefixStore(f"agents/{assignment.generation}.{assignment.round}", store),
        rank=place.group_rank,
        world_size=place.group_world_size,
        bootstrap_store_info=RendezvousStoreInfo(assignment.host, assignment.port),
    )
