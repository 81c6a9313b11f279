"""One node's wait for its siblings: it looks at them now and then, and may give its slot back.

What it decides by is in ``airflow_provider.gang``. Each decision is made by one look at Airflow. Of
two looks the second could contradict the first.
"""

from __future__ import annotations

import datetime as dt
import logging
from collections.abc import Callable, Mapping
from typing import Any

from airflow.sdk.exceptions import (
    AirflowFailException,
    AirflowRescheduleException,
    AirflowRuntimeError,
)

from airflow_provider.execution.final_exception import hopeless_exception
from airflow_provider.gang.node import GangNode
from airflow_provider.gang.reschedule import (
    GiveSlotBack,
    KeepSlot,
    RescheduleAt,
    SlotTimeout,
    TimeIsUp,
    after_failed_rendezvous,
    decide_slot,
    next_attempt,
)
from airflow_provider.gang.siblings import (
    GangHopeless,
    GangView,
    describe_absent,
    started_nodes,
)
from llutil.errors import LaunchError, RendezvousError, ServerLostError

__all__ = ["LAST_RUN", "SlotWait"]

LAST_RUN = "elastic_launch_last_run"
"""Where the task's state store has the time at which a node's workers last ran, as far as that was
before it gave its slot back.
"""


class SlotWait:
    """The wait of ``node``, whose task instance ``context`` belongs to, for a slot of each sibling.

    :param server: the node that serves the job's ledger, if one does.
    :param timeout: how long the node keeps its slot.
    :param lost: why the ledger of this node's launch is over, by what Airflow says of the nodes;
        None if it may go on.

    ``decided`` is why the node is to stop waiting; None as long as it waits.
    """

    def __init__(
        self,
        node: GangNode,
        context: Mapping[str, Any],
        log: logging.Logger,
        *,
        server: int | None,
        timeout: SlotTimeout,
        lost: Callable[[GangView], str | None] = lambda _: None,
    ) -> None:
        self.timeout = timeout
        self.decided: GiveSlotBack | GangHopeless | None = None
        self._node = node
        self._context = context
        self._log = log
        self._server = server
        self._lost = lost
        self._view: GangView | None = None
        self._told: tuple[int, ...] = ()

    def check(self, waited: float) -> str | LaunchError | None:
        """Why the agent is to be stopped, which has been without workers for ``waited`` seconds. It
        is an error if only this launch has to end.
        """
        view = self._look()
        if view is None:
            return None  # one look among many
        match decide_slot(view, waited, self.timeout):
            case KeepSlot(started):
                self._tell(started)
                return self._server_lost(view)
            case GangHopeless(why) as hopeless:
                self.decided = hopeless
                return why
            case GiveSlotBack() as given:
                self.decided = given
                return "this node gives its slot back"

    def is_over(self, error: LaunchError) -> bool:
        """Whether another launch could not mend ``error``, since it is the siblings who are away.

        If only the one that serves the ledger has gone, another launch waits for its next try.
        """
        if isinstance(error, RendezvousError) and not isinstance(error, ServerLostError):
            self._decide(error)
        return self.decided is not None

    def come_again(
        self,
        error: LaunchError,
        *,
        timeout: float,
        gang_timeout: float,
        pool: str,
        ran: bool,
    ) -> None:
        """End this try of the task as was ``decided``; does nothing if nothing was.

        :param timeout: that of the node's rendezvous, as the gang's nodes share it.
        :param ran: whether workers of this node have run meanwhile.

        :raises AirflowFailException: there is nothing to wait for, or the gang's time is over.
        :raises AirflowRescheduleException: the node comes back another time.
        """
        if isinstance(error, ServerLostError):
            self._decide(error)
        match self.decided:
            case None:
                return
            case GangHopeless() as hopeless:
                raise hopeless_exception(hopeless) from error
            case GiveSlotBack(absent):
                pass
        lost = isinstance(error, ServerLostError)
        why = str(error) if lost else self._describe(absent, pool)
        now = dt.datetime.now(dt.UTC)
        found = next_attempt(
            now=now,
            began=self._began(now, ran=ran),
            gang=self._node.key.gang_id(),
            timeout=timeout,
            gang_timeout=gang_timeout,
            attempts=self._context.get("task_reschedule_count") or 0,
        )
        match found:
            case RescheduleAt(when):
                self._log.warning("%s; %s gives its slot back until %s", why, self._node.name, when)
                raise AirflowRescheduleException(when) from error
            case TimeIsUp():
                # For good: another try would have as long again, and so would the one after that.
                raise AirflowFailException(
                    f"{why}, and the {gang_timeout:g} s of gang_timeout are over. {error}"
                ) from error

    def _server_lost(self, view: GangView) -> ServerLostError | None:
        try:
            why = self._lost(view)
        except Exception as error:  # noqa: BLE001 - the XCom backend may be the user's own
            kind = type(error).__name__
            self._log.warning(
                "Airflow does not say where node %s is: %s: %s", self._server, kind, error
            )
            return None
        return None if why is None else ServerLostError(why)

    def _decide(self, error: RendezvousError) -> None:
        if self.decided is None:
            self.decided = after_failed_rendezvous(self._look(), error)

    def _look(self) -> GangView | None:
        try:
            self._view = self._node.view(self._context["ti"], server=self._server)
        except Exception as error:  # noqa: BLE001 - as above
            kind = type(error).__name__
            self._log.warning("Airflow does not say how the other nodes are: %s: %s", kind, error)
            return None
        return self._view

    def _tell(self, started: tuple[int, ...]) -> None:
        if started and started != self._told:
            self._log.info(
                "no round yet after %g s, but enough nodes have started: %s. They are waited for, "
                "%g s in all",
                self.timeout.absent,
                _listed(started),
                self.timeout.started,
            )
        self._told = started

    def _describe(self, absent: Mapping[int, str | None], pool: str) -> str:
        view = self._view
        if view is None:
            return "no round began in time"
        if absent:
            return describe_absent(view, absent, pool)
        started = started_nodes(view)
        return (
            f"no round began within {self.timeout.started:g} s, though enough nodes have started "
            f"({_listed(started)}): they have not joined the rendezvous, or cannot"
        )

    def _began(self, now: dt.datetime, *, ran: bool) -> dt.datetime:
        """Since when the gang has been trying to form: its first start, or when it last ran."""
        ti = self._context["ti"]
        first: dt.datetime = ti.start_date or now
        try:
            first = ti.get_first_reschedule_date(self._context) or first
        except AirflowRuntimeError as error:
            self._log.warning("when this node was first started is not known: %s", error)
        store = self._context.get("task_state_store")
        if store is None:
            return now if ran else first
        try:
            if ran:
                store.set(LAST_RUN, now.isoformat())
                return now
            last = store.get(LAST_RUN)
            return max(first, dt.datetime.fromisoformat(last)) if last else first
        except Exception as error:  # noqa: BLE001 - the store may be the user's own
            kind = type(error).__name__
            self._log.warning("when this node's workers last ran is not known: %s: %s", kind, error)
            return now if ran else first


def _listed(numbers: tuple[int, ...]) -> str:
    return ", ".join(f"node {number}" for number in numbers)
