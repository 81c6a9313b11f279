"""What a handler was told by its node's driver, and what it tells the driver of torch's agent.

One ``NodePart`` is one node's part in a run, from its driver's start to its end. Its methods are
called by one thread at a time, but for those that say otherwise. This module imports torch for the
errors that an agent of torch's expects.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta

from torch.distributed import DistError, TCPStore
from torch.distributed.elastic.rendezvous import (
    RendezvousClosedError,
    RendezvousConnectionError,
    RendezvousError,
    RendezvousStateError,
    RendezvousStoreInfo,
    RendezvousTimeoutError,
)

from llutil.errors import ConfigError, LaunchError
from llutil.failure import JobFailure
from llutil.rendezvous.driver.driver import Driver
from llutil.rendezvous.driver.round_store import (
    SHARING_OFF,
    connect_to_store,
    place_for_ranks_store,
    ranks_store_is_placed,
)
from llutil.rendezvous.protocol import instructions as do
from llutil.rendezvous.protocol import observations as see
from llutil.rendezvous.protocol.records import Assignment, Stage

__all__ = ["NodePart", "torchs_errors"]

_log = logging.getLogger(__name__)

_FOREVER = float("inf")
# All durations are in seconds.
_ONE_WAIT = 60.0
"""One wait for the driver. The machine decides how long a node waits in all."""
_STORE_REACHED = 60.0
"""By then the round's store must be reached."""
_ONE_CONNECT_ATTEMPT = 5.0
"""After each attempt to connect, it is checked whether the round is over already."""
_RANKS_STORE_PLACED = 30.0
"""By then the first node must have told where rank 0 makes the ranks' own store."""
_ONE_LOOK = 0.2
"""Between two looks for that. A wait in torch's store hears neither instructions nor signals."""
_LINGER = 5.0
"""How long a node that leaves stays to be heard, and for the others to do the same."""
_LEFT = 30.0
"""By then leaving must be done, but for a node that has succeeded."""

_SHUT_DOWN = "the agent shut its rendezvous down"


class NodePart:
    """One node's part in the run ``run_id``, which ``driver`` plays."""

    def __init__(self, run_id: str, driver: Driver) -> None:
        self.driver = driver
        self.running: tuple[Assignment, str] | None = None
        """The round that the agent was given, until it asks for the next, and who it is in it."""
        self.over = False
        """Whether that round is over for this node: its workers have to end."""
        self.succeeded = False
        """Whether the driver knows that the agent's workers have succeeded, for good."""
        self.end: do.End | None = None
        """How the part ended."""
        self._run = f"run {run_id!r}"
        self._closed = False
        self._next: tuple[Assignment, str] | None = None
        """A round that was sealed and not given to the agent yet, and who this node is in it."""

    def take_instructions(self) -> None:
        """Take what the driver has wanted since the last call.

        :raises RendezvousError: (torch's) the driver has failed.
        """
        if self.end is not None:
            return  # there are no more, and the driver may be closed
        with torchs_errors():
            instructions = self.driver.take_instructions()
        for instruction in instructions:
            match instruction:
                case do.StartWorkers(assignment=assignment, node=node):
                    self._next = (assignment, node)
                case do.StopWorkers(stage=stage) if stage == self._stage:
                    self.over = True
                case do.StopWorkers(stage=stage):
                    # The agent has no workers of that round: it never heard of it, or has ended
                    # them already.
                    self._next = None
                    self.driver.tell(see.WorkersStopped(stage))
                case do.RaiseGate(gate=gate):
                    why = "torch's agent cannot hold its ranks at a step"
                    self.driver.tell(see.GateRaised(gate.stage, gate.number, None, why))
                case do.OpenGate() | do.RefuseWish():
                    pass  # it holds none, and wishes nothing
                case do.Finish(end=end):
                    self.end = end

    @property
    def _stage(self) -> Stage | None:
        return self.running[0].stage if self.running else None

    @property
    def serves_well(self) -> bool:
        """Whether the round has succeeded, and this node serves its store."""
        match self.running:
            case (assignment, node):
                return isinstance(self.end, do.FinishedWell) and assignment.by == node
            case _:
                return False

    def await_round(self) -> tuple[Assignment, str]:
        """Wait for a round of which this node is a member: the round, and who it is in it.

        :raises RendezvousError: (torch's) none will come.
        """
        while True:
            self.take_instructions()
            self.raise_if_ended()
            if self._next is not None:
                self.running, self._next = self._next, None
                return self.running
            self.driver.wait(time.monotonic() + _ONE_WAIT)

    def connect(self, assignment: Assignment) -> TCPStore | None:
        """A client of the round's store; None if the round was over before it could be reached.

        :raises RendezvousConnectionError: (torch's) it cannot be reached.
        """
        deadline = time.monotonic() + _STORE_REACHED
        while True:
            try:
                return connect_to_store(assignment.host, assignment.port, _ONE_CONNECT_ATTEMPT)
            except DistError as error:
                self.take_instructions()
                if self.over:
                    return None
                if time.monotonic() >= deadline:
                    raise RendezvousConnectionError(
                        f"the store of {assignment.stage}, which {assignment.by} hosts at "
                        f"{assignment.host}, port {assignment.port}, cannot be reached: {error}"
                    ) from error

    def place_ranks_store(
        self, assignment: Assignment, node: str, store: TCPStore
    ) -> RendezvousStoreInfo | None:
        """Where rank 0 makes the ranks' own store; None if the round was over before the first node
        told it through ``store``, the round's.

        :raises RendezvousConnectionError: (torch's) it told nothing in time.
        """
        seat, rank = assignment.seat(node), assignment.ranks_of(node).group_rank
        assert seat is not None
        store.set_timeout(timedelta(seconds=_RANKS_STORE_PLACED))
        deadline = time.monotonic() + _RANKS_STORE_PLACED
        lost: DistError | None = None  # torch's store does not connect again
        while True:
            try:
                if lost is None and (rank == 0 or ranks_store_is_placed(store)):
                    return place_for_ranks_store(store, rank, seat.address)
            except DistError as error:
                lost = error
            self.take_instructions()
            if self.over or self.end is not None:
                return None
            now = time.monotonic()
            if now >= deadline:
                raise RendezvousConnectionError(
                    f"{assignment.stage}: {SHARING_OFF} is 1 on this node, and the first node did "
                    f"not tell within {_RANKS_STORE_PLACED:g} s where rank 0 makes the ranks' "
                    f"store{f' ({lost})' if lost else ''}. Set the variable on all nodes or on none"
                ) from lost
            self.driver.wait(min(deadline, now + _ONE_LOOK))

    def end_round(self, failure: JobFailure) -> None:
        """The agent has ended its workers of the round that it was in, if there were any.

        To the others that is the ``failure``, if the round was not over already. One that ends the
        job is told in any case.
        """
        stage, over = self._stage, self.over
        assert stage is not None
        self.running, self.over = None, False
        if over and not failure.fatal:
            self.driver.tell(see.WorkersStopped(stage))
        else:
            self.driver.tell(see.WorkersEnded(stage, failure))

    def succeed(self, stage: Stage, linger: float = _FOREVER) -> None:
        """The agent's workers of the round ``stage`` have succeeded, and it runs no others. From
        any thread.

        This node leaves as soon as that was told. As the leader it serves its round for as long as
        that runs, or for ``linger`` seconds.
        """
        if stage == self._stage and not self.succeeded:
            self.succeeded = True
            self.driver.tell(see.WorkersEnded(stage, None))
            self.driver.retire(
                see.EndRequested("its workers have succeeded", stop=False, linger=linger)
            )

    def retire(self) -> None:
        """Ask this node's part to end; no agent waits for its next round. From any thread."""
        self.driver.retire(see.EndRequested(_SHUT_DOWN, stop=False))

    def close(self, why: str) -> None:
        """Ask the whole job to stop. From any thread."""
        self._closed = True
        self.driver.tell(see.EndRequested(why, stop=True))

    def leave(self, error: BaseException | None, failure: JobFailure | None) -> bool:
        """End this node's part, as an agent does that ends with ``error``; say whether that was
        done.

        ``failure`` is what ends the job for all nodes. With an error, and without a failure, only
        this node is gone. With neither, it has succeeded.
        """
        with suppress(RendezvousError):
            self.take_instructions()
        linger, deadline = 0.0, time.monotonic() + _LEFT
        if self.succeeded:
            linger = deadline = _FOREVER
            if not self.driver.ended:
                _log.info("%s: this node has succeeded, and waits for its round's end", self._run)
        elif self.running is not None and self.end is None and not self._closed:
            linger = _LINGER if failure is not None or error is None else 0.0
            if failure is not None:
                self.end_round(failure)
            elif error is None and not self.over:
                self.succeed(self.running[0].stage, linger)
        left = self.driver.leave(see.EndRequested(_SHUT_DOWN, stop=False, linger=linger), deadline)
        with suppress(RendezvousError):
            self.take_instructions()
        if isinstance(self.end, do.Failed):
            _log.warning("%s: the job failed: %s", self._run, self.end.why)
        self.end = self.end or do.Left(_SHUT_DOWN)
        return left

    def raise_if_ended(self) -> None:
        """:raises RendezvousError: (torch's) this node's part is over."""
        match self.end:
            case None:
                return
            case do.GaveUp(why=why, gone=True):
                raise RendezvousConnectionError(f"{self._run}: {why}")
            case do.GaveUp(why=why):
                raise RendezvousTimeoutError(f"{self._run}: {why}")
            case do.Refused(why=why):
                raise RendezvousStateError(f"{self._run}: {why}")
            case do.Failed(job_failure=JobFailure(why=why, failure=failure)) if failure:
                raise RendezvousClosedError(f"{self._run}: {why}\n{failure.trace}".rstrip())
            case end:
                raise RendezvousClosedError(f"{self._run}: {end.why}")


@contextmanager
def torchs_errors() -> Iterator[None]:
    """Raise the launcher's errors as torch's."""
    try:
        yield
    except ConfigError as error:
        raise RendezvousStateError(str(error)) from error
    except LaunchError as error:
        raise RendezvousConnectionError(str(error)) from error
