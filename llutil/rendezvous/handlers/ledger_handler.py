"""torch's ``RendezvousHandler`` on top of the driver, for agents that know nothing of ledgers.

The launcher's own agent uses ``Driver`` itself; a plain torchrun gets this handler, through the
entry points. Its restart budget is torch's, one for each agent. torch's interface has no way to
report how a round went. What can be known is told to the others: that workers have succeeded
(``agent_store``), and why an agent ended (``agent_outcome``).

An agent of torch's whose workers succeeded never runs them again. So its node leaves, and ends
nobody's round. If it serves the round's store, it stays until the round is over.
"""

from __future__ import annotations

import os
import sys
import threading
import time
import weakref
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from functools import partial

from torch.distributed import DistError, TCPStore
from torch.distributed.elastic.rendezvous import (
    RendezvousClosedError,
    RendezvousHandler,
    RendezvousInfo,
    RendezvousStateError,
    RendezvousStoreInfo,
)

from llutil.failure import JobFailure
from llutil.ledgers.served.job_server import JobServer
from llutil.rendezvous.driver.driver import Driver
from llutil.rendezvous.driver.round_store import ranks_use_agent_store
from llutil.rendezvous.handlers.agent_outcome import failure_of_job
from llutil.rendezvous.handlers.agent_store import AgentStore
from llutil.rendezvous.handlers.node_part import NodePart, torchs_errors
from llutil.rendezvous.protocol import observations as see
from llutil.rendezvous.protocol.records import Assignment, Stage
from llutil.time_budgets import LEDGER_CLOSED

__all__ = ["LedgerRendezvousHandler"]

_STORE_TIMEOUT = timedelta(minutes=5)
# Seconds. torch's limit for agents to wait for each other at the end (2.13).
_SERVED_ON = 300.0
# For all agents to pass the barrier once they have come to it, or to be given up.
_BARRIER_PASSED = timedelta(seconds=5)


class LedgerRendezvousHandler(RendezvousHandler):
    """One node's rendezvous. ``driver`` makes a driver when the first round is asked for.
    ``server`` serves the ledger, if this node does; it is closed when no other node needs it.

    torch's agent uses it from one thread; others may look, close it and shut it down. What it holds
    ends with ``shutdown``, or with the handler. A forked child holds nothing of it.
    """

    def __init__(
        self,
        backend: str,
        run_id: str,
        driver: Callable[[], Driver],
        server: JobServer | None = None,
    ) -> None:
        self._backend = backend
        self._run_id = run_id
        self._new_driver = driver
        self._use_agent_store = ranks_use_agent_store()
        self._starting = threading.Lock()
        """Guards the start of the driver, which does not happen after a shutdown."""
        self._turn = threading.RLock()
        """Guards the part. Whoever waits for a round holds it."""
        self._waits = False
        """Whether a thread waits for a round."""
        self._part: NodePart | None = None
        self._pid = os.getpid()
        self._finalizer: weakref.finalize[..., LedgerRendezvousHandler] | None = None
        self._store: AgentStore | None = None
        """The store of the newest round."""
        self._closed = ""
        """Why no round follows: the handler was closed or shut down."""
        self._server = server or JobServer()
        self._outer = sys.exc_info()[1]
        """What is handled around all this, until the shutdown. It is not the agent's."""

    @property
    def use_agent_store(self) -> bool:
        """Workers use the round's store, which the leader's process hosts, unless torch's variable
        says otherwise.
        """
        return self._use_agent_store

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
            together; or this process was forked from the one that is in the rendezvous.
        :raises RendezvousConnectionError: the store refuses us, the round's own store cannot be
            reached, or the first node does not tell where rank 0 makes the ranks' store.
        """
        if self._inherited:
            raise RendezvousStateError(
                f"run {self._run_id!r}: process {self._pid} is in this rendezvous, and process "
                f"{os.getpid()}, which was forked from it, is not; it needs a handler of its own"
            )
        with self._turn:
            self._waits = True
            try:
                return self._next()
            finally:
                self._waits = False

    def _next(self) -> RendezvousInfo:
        part = self._started()
        if part.running is not None:
            # torch's agent restarts after a failure, or for reasons of its own. To the other nodes
            # each restart is a failure.
            part.end_round(JobFailure(why="its agent restarts its workers"))
        self._raise_if_closed()
        while True:
            assignment, node = part.await_round()
            self._server.settle()
            store = part.connect(assignment)
            if store is not None:
                ranks_meet = self._where_ranks_meet(part, assignment, node, store)
                if ranks_meet is not None:
                    return self._info(assignment, node, store, ranks_meet)
            part.end_round(JobFailure(why="the round's store could not be reached"))

    def _where_ranks_meet(
        self, part: NodePart, assignment: Assignment, node: str, store: TCPStore
    ) -> RendezvousStoreInfo | None:
        """The place of the ranks' store; None if the round is over."""
        if self.use_agent_store:
            return RendezvousStoreInfo(assignment.host, assignment.port)
        return part.place_ranks_store(assignment, node, store)

    def _raise_if_closed(self) -> None:
        if self._closed:
            raise RendezvousClosedError(f"run {self._run_id!r}: {self._closed}")

    def _started(self) -> NodePart:
        with self._starting:
            if self._part is None:
                self._raise_if_closed()
                with torchs_errors():
                    driver = self._new_driver()
                driver.start()
                self._pid = os.getpid()
                self._finalizer = weakref.finalize(self, _let_go, driver, self._pid, self._server)
                self._part = NodePart(self._run_id, driver)
            return self._part

    @property
    def _inherited(self) -> bool:
        """Whether another process, from which this one was forked, is in the rendezvous."""
        return self._part is not None and self._pid != os.getpid()

    def _info(
        self, assignment: Assignment, node: str, store: TCPStore, ranks_meet: RendezvousStoreInfo
    ) -> RendezvousInfo:
        place = assignment.ranks_of(node)
        store.set_timeout(_STORE_TIMEOUT)
        prefix = f"agents/{assignment.generation}.{assignment.round}"
        note = partial(_note_success, weakref.ref(self), assignment.stage)
        self._store = AgentStore(prefix, store, note)
        return RendezvousInfo(
            store=self._store,
            rank=place.group_rank,
            world_size=place.group_world_size,
            bootstrap_store_info=ranks_meet,
        )

    def num_nodes_waiting(self) -> int:
        """1 if the round is over for this node: another came, or one was lost; torch's agent then
        restarts.

        :raises RendezvousStateError: the store's records do not fit together.
        :raises RendezvousConnectionError: the store refuses us.
        """
        part = self._look()
        return int(part is not None and part.over)

    def is_closed(self) -> bool:
        """Whether the job, or this node's part of it, is over.

        :raises RendezvousStateError: the store's records do not fit together.
        :raises RendezvousConnectionError: the store refuses us.
        """
        part = self._look()
        return bool(self._closed) or (part is not None and part.driver.decided_end is not None)

    def _look(self) -> NodePart | None:
        """The part, with the newest instructions, unless another thread takes them."""
        part = self._part
        if part is not None and not self._inherited and self._turn.acquire(blocking=False):
            try:
                part.take_instructions()
            finally:
                self._turn.release()
        return part

    def set_closed(self) -> None:
        """Ask the whole job to stop."""
        failure = self._failure(self._error())
        why = "the rendezvous was closed" + (f": {failure.why}" if failure else "")
        if not self._inherited and not self._closed:
            self._started().close(why)
        self._closed = self._closed or why

    def shutdown(self) -> bool:
        """Leave, and tell the others if that ends the job. The run id can be used again at once.

        It waits for as long as others need the round's store, if this node serves that and has
        succeeded.
        """
        error = self._error()
        if self._inherited:
            return True
        try:
            return self._leave(error)
        finally:
            self._server.close(linger=0.0 if error else _SERVED_ON)

    def _leave(self, error: BaseException | None) -> bool:
        with self._starting:
            part, self._closed = self._part, self._closed or "the rendezvous was shut down"
        if part is None or self._finalizer is None or not self._finalizer.alive:
            return True
        if self._waits:
            part.retire()  # ends the wait
        with self._turn:
            failure = self._failure(error)
            if error is None and self._store is not None and self._store.of_an_agent:
                failure = JobFailure(why="its agent ended, and its workers failed", fatal=True)
            store = self._store if part.succeeded else None
            if store is not None and part.running is not None:
                with suppress(DistError):
                    store.tell_passed(len(part.running[0].seats), _BARRIER_PASSED)
            left = part.leave(error, failure)
            if store is not None and part.serves_well:
                with suppress(DistError):
                    store.await_all_passed(_BARRIER_PASSED)
            closed = part.driver.close(time.monotonic() + LEDGER_CLOSED)
            if closed:
                self._finalizer.detach()
                self._outer = None
            return closed and left

    def _error(self) -> BaseException | None:
        """The error with which the agent ends, as far as this is called while it passes by."""
        error = sys.exc_info()[1]
        return None if error is self._outer else error

    def _failure(self, error: BaseException | None) -> JobFailure | None:
        """What ``error`` means for all nodes."""
        if error is None:
            return None
        running = self._part.running if self._part else None
        return failure_of_job(error, running[0].ranks_of(running[1]).group_rank if running else 0)

    def note_success(self, stage: Stage) -> None:
        """The agent's workers of that round have succeeded, and it will not start any more."""
        if self._part is not None:
            self._part.succeed(stage)


def _note_success(handler: weakref.ref[LedgerRendezvousHandler], stage: Stage) -> None:
    """The agent's store calls this, and must not keep the handler alive."""
    if living := handler():
        living.note_success(stage)


def _let_go(driver: Driver, pid: int, server: JobServer) -> None:
    """The handler is gone, or this process ends. A forked child has the handler, and no part in it.

    The main thread waits, so that nothing is left. Others may be amid whatever they collect
    garbage in, also the driver's own.
    """
    if os.getpid() != pid:
        return
    asked = see.EndRequested("its handler is gone", stop=False)
    if threading.current_thread() is threading.main_thread():
        driver.leave(asked, time.monotonic() + LEDGER_CLOSED)
    else:
        driver.retire(asked)
    server.close()
