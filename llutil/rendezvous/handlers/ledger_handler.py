"""torch's ``RendezvousHandler`` on top of the driver, for torch's own agent.

torch's interface has no way to report how a round ended. It can only express a round's members,
that something has changed (``num_nodes_waiting``), and that a node leaves. The launcher's own agent
uses ``Driver`` directly; plain torchrun gets this handler through the entry points. Then torch
counts restarts, separately on each agent.
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
from llutil.rendezvous.driver.round_store import connect_to_store
from llutil.rendezvous.protocol import instructions as do
from llutil.rendezvous.protocol import observations as see
from llutil.rendezvous.protocol.records import Assignment, Stage
from llutil.time_budgets import LEDGER_CLOSED

__all__ = ["LedgerRendezvousHandler"]

_STORE_TIMEOUT = timedelta(minutes=5)
# All durations are in seconds.
_ONE_WAIT = 60.0
"""One wait for the driver. The machine decides how long a node waits in all."""
_STORE_REACHED = 60.0
"""By then the round's store must be reached."""
_ONE_CONNECT_ATTEMPT = 5.0
"""After each attempt to connect, it is checked whether the round is over already."""
_LINGER = 5.0
"""How long the leader of a torchrun job waits for the others to leave, to write the marker."""
_LEFT = 30.0
"""By then leaving must be done."""


class LedgerRendezvousHandler(RendezvousHandler):
    """One node's rendezvous. ``new_driver`` is called when the first round is asked for.

    One thread uses it, as torch's agent does.
    """

    def __init__(self, backend: str, run_id: str, new_driver: Callable[[], Driver]) -> None:
        self._backend = backend
        self._run_id = run_id
        self._new_driver = new_driver
        self._driver: Driver | None = None
        self._running: Stage | None = None
        """The round that the agent got last; None once it asks for the next one."""
        self._next: tuple[Assignment, str] | None = None
        """A sealed round that the agent has not got yet, and this node's identity in it."""
        self._round_over = False
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
        :raises RendezvousConnectionError: the ledger refuses the client, or the round's TCPStore
            cannot be reached.
        """
        if self._driver is None:
            self._driver = self._new_driver()
            self._driver.start()
        driver = self._driver
        if self._running is not None:
            # torch's agent restarts after a failure, or for reasons of its own. To the other nodes
            # each restart is a failure.
            self._end_round(driver, "its agent restarts its workers")
        while True:
            assignment, node = self._await_round(driver)
            self._running = assignment.stage
            store = self._connect(driver, assignment)
            if store is not None:
                return _info(assignment, node, store)
            self._end_round(driver, "the round's store could not be reached")

    def _end_round(self, driver: Driver, why: str) -> None:
        """Tell the driver that no worker of this node is left in the round that it was in."""
        stage, over = self._running, self._round_over
        assert stage is not None
        self._running, self._round_over = None, False
        if over:
            driver.tell(see.WorkersStopped(stage))
        else:
            driver.tell(see.WorkersEnded(stage, JobFailure(why=why)))

    def _await_round(self, driver: Driver) -> tuple[Assignment, str]:
        while True:
            self._take_instructions(driver)
            self._raise_if_ended()
            if self._next is not None:
                found, self._next = self._next, None
                return found
            driver.wait(time.monotonic() + _ONE_WAIT)

    def _connect(self, driver: Driver, assignment: Assignment) -> TCPStore | None:
        """A client of the round's store; None if the round was over before it could be reached."""
        deadline = time.monotonic() + _STORE_REACHED
        while True:
            try:
                return connect_to_store(assignment.host, assignment.port, _ONE_CONNECT_ATTEMPT)
            except DistError as error:
                self._take_instructions(driver)
                if self._round_over:
                    return None
                if time.monotonic() >= deadline:
                    raise RendezvousConnectionError(
                        f"the store of {assignment.stage}, which {assignment.by} hosts at "
                        f"{assignment.host}, port {assignment.port}, cannot be reached: {error}"
                    ) from error

    def num_nodes_waiting(self) -> int:
        """1 if the round is over, because a node came, was lost or failed; else 0. torch's agent
        then restarts its workers.
        """
        if self._driver is not None and self._end is None:
            self._take_instructions(self._driver)
        return int(self._round_over)

    def is_closed(self) -> bool:
        """Whether this node's part is over."""
        return self._end is not None

    def set_closed(self) -> None:
        """Ask the whole job to stop."""
        if self._driver is not None:
            self._driver.tell(see.EndRequested("the rendezvous was closed", stop=True))

    def shutdown(self) -> bool:
        """Leave. The last node that leaves writes the generation's marker; then the run id can be
        used again.
        """
        driver = self._driver
        if driver is None:
            return True
        asked = see.EndRequested("the agent shut its rendezvous down", stop=False, linger=_LINGER)
        left = driver.leave(asked, time.monotonic() + _LEFT)
        self._end = self._end or do.Left(asked.why)
        return driver.close(time.monotonic() + LEDGER_CLOSED) and left

    def _take_instructions(self, driver: Driver) -> None:
        try:
            instructions = driver.take_instructions()
        except ConfigError as error:
            raise RendezvousStateError(str(error)) from error
        except LaunchError as error:
            raise RendezvousConnectionError(str(error)) from error
        for instruction in instructions:
            match instruction:
                case do.StartWorkers(assignment=assignment, node=node):
                    self._next = (assignment, node)
                case do.StopWorkers(stage=stage) if stage == self._running:
                    self._round_over = True
                case do.StopWorkers(stage=stage):
                    # The agent has no workers of that round: it has not got the round yet, or has
                    # ended them already.
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
    ranks = assignment.ranks_of(node)
    store.set_timeout(_STORE_TIMEOUT)
    return RendezvousInfo(
        store=PrefixStore(f"agents/{assignment.generation}.{assignment.round}", store),
        rank=ranks.group_rank,
        world_size=ranks.group_world_size,
        bootstrap_store_info=RendezvousStoreInfo(assignment.host, assignment.port),
    )
