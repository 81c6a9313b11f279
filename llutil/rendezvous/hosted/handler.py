"""A c10d rendezvous at a store that one node of the job hosts itself, for where there is no store
beside the nodes.

torch's own handler agrees there on who is in a round. What it leaves to chance is added, in the
same store:

* ranks follow the nodes' preferred index, and each round has a fresh store for its workers;
* who succeeded says so and waits, without a timer, and runs again if another one must: no exit
  barrier;
* the first failure is told to all, and so is that the host goes;
* a node that gives no sign of life for a while is given up, also where its workers' peers notice
  nothing.

Where the store is, and the way in, is ``node_store``; what belongs to one round is ``round``.
Everything is asked about once a look, as often as the agent looks. This module imports torch.
"""

from __future__ import annotations

import logging
import time

from torch.distributed import DistError
from torch.distributed.elastic.rendezvous import (
    RendezvousClosedError,
    RendezvousHandler,
    RendezvousInfo,
    RendezvousParameters,
)
from torch.distributed.elastic.rendezvous import RendezvousError as TorchRendezvousError
from torch.distributed.elastic.rendezvous.c10d_rendezvous_backend import C10dRendezvousBackend
from torch.distributed.elastic.rendezvous.dynamic_rendezvous import create_handler

from llutil.errors import RendezvousError, ServerLostError
from llutil.rendezvous.driver.round_store import (
    SHARING_OFF,
    ranks_use_agent_store,
    store_sharing_disabled,
)
from llutil.rendezvous.hosted.node_store import HostedStore, StoreAddress
from llutil.rendezvous.hosted.round import HostedRound
from llutil.rendezvous.protocol import record_codec
from llutil.rendezvous.protocol.records import Report

__all__ = ["HostedJobFailed", "HostedRendezvous"]

_log = logging.getLogger(__name__)

_LOOK = 0.05  # seconds between two looks for the cause of a failure
_ECHO = 3.0  # seconds in which the cause of a failure that is only an echo is told
_FAILURE = "llutil/failure"


class HostedJobFailed(Exception):
    """The job has failed on another node, as ``report`` says."""

    def __init__(self, report: Report) -> None:
        super().__init__(report.job_failure and report.job_failure.why)
        self.report = report


class HostedRendezvous(RendezvousHandler):
    """torch's rendezvous interface, and what an agent wants to know besides.

    :raises RendezvousError: this node cannot host.
    :raises ServerLostError: the host is not there.
    """

    def __init__(self, place: StoreAddress, parameters: RendezvousParameters) -> None:
        if not ranks_use_agent_store():
            _log.warning(
                "%s is 1 and has no effect on a job whose store one of its nodes hosts: its ranks "
                "use the store that the first node of each round serves",
                SHARING_OFF,
            )
        self._place = place
        self._node_store = HostedStore(place)
        self._store = self._node_store.store
        parameters.local_addr = self._node_store.address
        self._silence = _silence(parameters)
        self._round: HostedRound | None = None
        try:
            with self._node_store.speaking():
                self._inner = create_handler(
                    self._store, C10dRendezvousBackend(self._store, parameters.run_id), parameters
                )
        except BaseException:
            self._node_store.close()
            raise

    # What torch's interface asks for.

    @property
    def use_agent_store(self) -> bool:
        """Workers connect to the store that the first node of the round serves, also where torch's
        variable says otherwise.
        """
        return True

    def get_backend(self) -> str:
        """The backend's name."""
        return "c10d"

    def get_run_id(self) -> str:
        """The job's run id."""
        return str(self._inner.get_run_id())

    def next_rendezvous(self) -> RendezvousInfo:
        """Wait for the next round.

        :raises HostedJobFailed: there is none: the job has failed meanwhile.
        :raises RendezvousError: (torch's) it did not form.
        :raises ServerLostError: the host has gone.
        """
        with self._node_store.speaking():
            last, self._round = self._round, None
            if last is not None:
                last.start_again()
            try:
                with store_sharing_disabled():
                    info = self._inner.next_rendezvous()
            except RendezvousClosedError:
                if last is not None:
                    self._check_failure()
                kind = RendezvousError if self.hosts else ServerLostError
                raise kind(
                    f"the job whose store {self._node_store.whose} is over; wanted one that goes on"
                ) from None
            finally:
                if last is not None:
                    last.close()
            self._round = HostedRound(info, self._place, self._node_store, self._silence)
            return self._round.info

    def num_nodes_waiting(self) -> int:
        """How many nodes wait for the next round, if it is to come; gives a sign of life, and looks
        for the others'.

        Not when somebody has succeeded already: then only one that was in the round, and must run
        again, counts.

        :raises HostedJobFailed: the job has failed on another node.
        :raises ServerLostError: the host has gone.
        """
        with self._node_store.speaking():
            self._check_failure()
            current = self._round
            if current is None:
                return 0
            current.give_sign()
            current.give_up_the_silent()
            if current.settled:
                return int(current.starts_again)
            waiting = int(self._inner.num_nodes_waiting())
            return 0 if current.anybody_succeeded else waiting

    def is_closed(self) -> bool:
        """Whether the job is over."""
        return bool(self._inner.is_closed())

    def set_closed(self) -> None:
        """The job is over."""
        self._inner.set_closed()

    def shutdown(self) -> bool:
        """This node is done. The host ends the job for whoever would still come, and stays until
        its guests are gone.
        """
        if self._round is not None:
            self._round.close()
        closed = True
        if self.hosts:
            closed = bool(self._inner.shutdown())
            self._node_store.see_off()
        self._node_store.close()
        return closed

    # What an agent wants besides.

    @property
    def endpoint(self) -> str:
        """The address of the store's door."""
        return self._node_store.endpoint

    @property
    def hosts(self) -> bool:
        """Whether the store is this node's."""
        return self._place.hosts

    @property
    def label(self) -> str:
        """What people call this node."""
        return self._place.label

    def succeed(self) -> None:
        """All ranks of this node have succeeded."""
        assert self._round is not None
        with self._node_store.speaking():
            self._round.succeed()

    def all_succeeded(self) -> bool:
        """Whether all nodes of the round have. Call ``num_nodes_waiting`` first: it sees who is
        silent.

        :raises ServerLostError: the host has gone.
        """
        assert self._round is not None
        with self._node_store.speaking():
            return self._round.all_succeeded()

    def fail(self, report: Report) -> Report:
        """The job has failed here; the first failure of the whole job, which may be another node's.

        One that is only an echo of what happened elsewhere waits a little for what that was.
        """
        patient = report.job_failure is not None and report.job_failure.echo
        until = time.monotonic() + (_ECHO if patient else 0.0)
        text = record_codec.encode(report).decode()
        try:
            while time.monotonic() < until and not self._store.check([_FAILURE]):
                time.sleep(_LOOK)
            first = self._store.compare_set(_FAILURE, "", text)
            self._inner.set_closed()  # so that nobody waits for another round
        except (DistError, TorchRendezvousError):
            return report  # the store is gone: this is all that is known here
        return record_codec.decode_as(Report, _FAILURE, first)

    def abandon(self) -> None:
        """This node has been told to stop. If it hosts, nobody is let in any more, and its guests
        see that it goes.
        """
        self._node_store.shut_out()

    def _check_failure(self) -> None:
        if self._store.check([_FAILURE]):
            told = self._store.get(_FAILURE)
            raise HostedJobFailed(record_codec.decode_as(Report, _FAILURE, told))


def _silence(parameters: RendezvousParameters) -> float:
    """Seconds without a sign of life after which a node is given up: the same in which torch's
    handler does.
    """
    interval = parameters.get_as_int("keep_alive_interval", 5)
    attempts = parameters.get_as_int("keep_alive_max_attempt", 3)
    return max(3.0, float((interval or 5) * (attempts or 3)))
