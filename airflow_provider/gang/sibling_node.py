"""A node of a gang without a connection, but not node 0: it finds the ledger that node 0 serves.

A sibling looks for the notice of node 0 as long as it may hold its slot. It starts its agent once
Airflow says that node 0 runs, and whoever answers at the address of the notice has proved that it
is the agent of that launch (``llutil.ledgers.served.handshake``). A notice may come from an earlier
try, an earlier launch or a task that was killed. Then nobody answers, or somebody else, and the
sibling goes on looking. If node 0 is lost, it looks again, for the notice of node 0's next try.

One look is two requests to Airflow, however many nodes there are: the states of all nodes, and the
notice. A third one is made if a sibling has succeeded. The time between two looks is random, so
that nodes that began together do not look together. Airflow is imported inside functions.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from airflow_provider.gang.ledger_notice import (
    NOTICE,
    SERVING_NODE,
    LedgerNotice,
    Try,
    Wait,
    launch_is_over,
    look,
)
from airflow_provider.gang.node import GangNode
from airflow_provider.gang.reschedule import GiveSlotBack, SlotTimeout, decide_slot
from airflow_provider.gang.siblings import (
    GangDone,
    GangHopeless,
    GangLost,
    GangView,
    outlook,
    peers_succeeded,
)
from airflow_provider.gang.xcom_values import pull_all
from llutil.errors import LaunchError, RendezvousTimeoutError, ResultError, StoppedError
from llutil.launcher.config import LaunchConfig
from llutil.ledgers.served.handshake import HandshakeError, knock
from llutil.system.addresses import machine_id

__all__ = ["NotNeededError", "ServerMissingError", "SiblingNode"]

# Seconds for the handshake with the ledger.
_KNOCK = 3.0
# Seconds between two looks for a notice, without jitter: the least and the most.
_SOONEST, _LATEST = 0.5, 5.0


class ServerMissingError(RendezvousTimeoutError):
    """Node 0 did not serve the ledger in time. The same launch at once would only wait again."""

    retryable = False


class NotNeededError(LaunchError):
    """The job has succeeded without this node."""


class SiblingNode:
    """A sibling of node 0: its launches begin once the ledger is there.

    :param returns: whether somebody wants what the node's ranks return.
    :param timeout: how long one launch waits for that.
    :param sleep: waits for so many seconds, or until the task is to stop, which ``stopped`` tells.
    :param draw: a random number from 0 to 1.
    """

    def __init__(
        self,
        node: GangNode,
        ti: Any,
        log: logging.Logger,
        *,
        returns: bool,
        timeout: SlotTimeout,
        sleep: Callable[[float], None],
        stopped: Callable[[], bool],
        draw: Callable[[], float],
    ) -> None:
        self._node = node
        self._ti = ti
        self._log = log
        self._returns = returns
        self._timeout = timeout
        self._sleep = sleep
        self._stopped = stopped
        self._draw = draw
        self._said = ""
        self._view: GangView | None = None
        self._used: LedgerNotice | None = None

    def meet(self, config: LaunchConfig) -> LaunchConfig:
        """``config`` for one launch, at the ledger that node 0 serves now.

        :raises ServerMissingError: node 0 did not serve it within the timeout.
        :raises NotNeededError: the job has succeeded meanwhile.
        :raises ResultError: it has, with an earlier try of this node, whose values are gone, and
            somebody wants them.
        :raises AirflowFailException: node 0 can never come.
        :raises StoppedError: the task is to stop.
        """
        began = time.monotonic()
        pause = _SOONEST
        while True:
            notice, why = self._look()
            if notice is not None:
                self._log.info(
                    "node %d, try %d (%s), serves the job's ledger at %s",
                    SERVING_NODE,
                    notice.try_number,
                    notice.ti_id,
                    notice.endpoint,
                )
                self._said = ""
                self._used = notice
                options = {"serves": False, "secret": notice.secret}
                return replace(
                    config,
                    rdzv_endpoint=notice.endpoint,
                    rdzv_configs={**config.rdzv_configs, **options},
                )
            if why != self._said:
                self._said = why
                self._log.info("waiting: %s", why)
            waited = time.monotonic() - began
            absent, started = self._timeout.absent, self._timeout.started
            if waited >= started or self._gives_up(waited):
                raise ServerMissingError(f"no ledger to meet at for {waited:.0f} s: {why}")
            left = (absent if waited < absent else started) - waited
            self._sleep(min(pause * (0.5 + self._draw()), left))
            pause = min(2 * pause, _LATEST)
            if self._stopped():
                raise StoppedError(f"stopped while it waited: {why}")

    def lost(self, view: GangView) -> str | None:
        """Why the ledger of this node's launch is over, which node 0 served; None if it may go on.

        The agent notices the end of the ledger by itself, unless the machine of node 0 is gone or
        cut off without a word. ``view`` is what Airflow says now.
        """
        if self._used is None or SERVING_NODE in peers_succeeded(view):
            return None  # the agent will soon learn that the job has succeeded
        state = view.states.get(SERVING_NODE)
        return launch_is_over(state, self._used, self._notice() if state == "running" else None)

    def _look(self) -> tuple[LedgerNotice | None, str]:
        """The notice of a node 0 that answers; without one, why there is none."""
        from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException

        try:
            view = self._view = self._node.view(self._ti, server=SERVING_NODE)
            state = view.states[SERVING_NODE]
            notice = self._notice() if state == "running" else None
        except Exception as error:  # noqa: BLE001 - the XCom backend may be the user's own
            self._view = None  # one look among many
            told = f"{type(error).__name__}: {error}"
            return None, f"Airflow does not say how node {SERVING_NODE} is: {told}"
        match outlook(view):
            case GangLost(why) if self._returns:
                raise ResultError(why)
            case GangDone(why) | GangLost(why):
                raise NotNeededError(why)
            case GangHopeless(why, skipped):
                raise AirflowSkipException(why) if skipped else AirflowFailException(why)
            case _:
                pass
        match look(state, notice, machine_id()):
            case Wait(why):
                return None, why
            case Try(notice):
                why = self._knock(notice)
                return (None, why) if why else (notice, "")

    def _notice(self) -> LedgerNotice | None:
        """The notice of node 0 in XCom."""
        notices = map(LedgerNotice.of, pull_all(self._ti, self._node.key.task_id, NOTICE))
        return next((one for one in notices if one is not None), None)

    def _gives_up(self, waited: float) -> bool:
        """Whether this node gives its slot back, by the last look."""
        if self._view is None:
            return False
        return isinstance(decide_slot(self._view, waited, self._timeout), GiveSlotBack)

    def _knock(self, notice: LedgerNotice) -> str:
        """Empty if the agent that left ``notice`` answers, else what is wrong."""
        try:
            knock(*notice.address, notice.secret, _KNOCK)
        except (OSError, HandshakeError, UnicodeError) as error:  # no name of a host is so long
            return (
                f"the address that node {SERVING_NODE} left in its try {notice.try_number}, "
                f"{notice.endpoint}, is not its own any more, or not yet reached ({error})"
            )
        return ""
