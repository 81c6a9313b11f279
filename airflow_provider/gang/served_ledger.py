"""A gang without a store of its own: the agent of node 0 hosts one for the job.

The nodes need nothing but Airflow to find each other. Node 0 binds the store when its agent starts,
and pushes a ``Notice`` of its address to XCom. A sibling looks for the notice as long as it may
hold its slot. It starts its own agent once Airflow says that node 0 runs, and the store at that
address has proved that the agent of the notice owns it
(``llutil.rendezvous.hosted.store_handshake``). A notice may come from an earlier try, an earlier
launch or a task that was killed. Then nobody answers, or somebody else, and the sibling goes on
looking. If node 0 is lost, they look again for the notice of its next try.

The gang cannot go on without node 0. ``Host`` and ``Guest`` act; Airflow is imported inside
functions.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

from airflow_provider.gang.ledger_notice import HOST, NOTICE, Notice, Try, Wait, look
from airflow_provider.gang.node import GangNode
from airflow_provider.gang.reschedule import GiveSlotBack, SlotTimeout, decide_slot
from airflow_provider.gang.siblings import GangDone, GangHopeless, GangView, outlook
from airflow_provider.gang.xcom_values import pull_all
from llutil.backends.table import C10D
from llutil.errors import ConfigError, LaunchError, RendezvousTimeoutError, StoppedError
from llutil.launcher.config import LaunchConfig
from llutil.rendezvous.hosted.store_handshake import WrongDoorError, knock, new_secret
from llutil.system.addresses import host_and_port, local_address, machine_id

__all__ = [
    "Guest",
    "Host",
    "HostMissingError",
    "NotNeededError",
    "hosted_place",
    "is_hosted",
    "own_address",
]

# It stands for the endpoint, which is only known once node 0 runs.
_PLACE = "node-0:0"
# Seconds for the handshake with the store.
_KNOCK = 3.0
# Seconds between two looks for a notice, without jitter: the least and the most.
_SOONEST, _LATEST = 0.5, 5.0


class HostMissingError(RendezvousTimeoutError):
    """Node 0 did not host the store in time. The same launch at once would only wait again."""

    retryable = False


class NotNeededError(LaunchError):
    """The job has succeeded without this node."""


def hosted_place(configs: Mapping[str, Any]) -> dict[str, Any]:
    """The rendezvous parameters of a gang whose node 0 hosts, before it does.

    ``configs`` are the deployment's default ``rdzv_configs``.
    """
    shared = {option.key: configs[option.key] for option in C10D.options if option.key in configs}
    return {"rdzv_backend": C10D.name, "rdzv_endpoint": _PLACE, "rdzv_configs": shared}


def is_hosted(config: LaunchConfig) -> bool:
    """Whether ``config`` is that of a gang whose node 0 hosts."""
    return config.rdzv_backend == C10D.name and config.rdzv_endpoint == _PLACE


def own_address() -> str:
    """This worker's address on its route to Airflow's API server, which all nodes of a gang reach.

    :raises ConfigError: there is no such route.
    """
    from airflow.sdk.configuration import conf

    base = conf.get("api", "base_url", fallback="") or "/"
    if base.startswith("/"):  # as Airflow completes it (3.3)
        base = "http://localhost:8080"
    url = urlsplit(conf.get("core", "execution_api_server_url", fallback="") or base)
    try:
        return local_address(url.hostname or "", url.port or 443)
    except OSError as error:
        raise ConfigError(
            "no address of this worker could be found for the other nodes: no route to Airflow's "
            f"API server at {url.hostname!r} ({error}); give local_addr"
        ) from error


class Host:
    """Node 0: each of its launches hosts a new store for the job."""

    def __init__(self, node: GangNode, ti: Any, log: logging.Logger) -> None:
        self._node = node
        self._ti = ti
        self._log = log
        self._secret = ""

    def meet(self, config: LaunchConfig) -> LaunchConfig:
        """``config`` for one launch."""
        self._secret = new_secret()
        address = (config.local_addr or own_address()).strip("[]")
        return replace(
            config,
            rdzv_endpoint=host_and_port(address, 0),
            rdzv_configs={**config.rdzv_configs, "is_host": True, "door": self._secret},
        )

    def publish(self, endpoint: str) -> None:
        """Tell the siblings where the store is; it is bound, and answers."""
        notice = Notice(
            ti_id=str(self._ti.id),
            try_number=self._ti.try_number,
            rerun_token=self._node.rerun_token,
            endpoint=endpoint,
            secret=self._secret,
            machine=machine_id(),
        )
        self._ti.xcom_push(key=NOTICE, value=notice.to_json())
        self._log.info("this node hosts the job's store at %s", endpoint)


class Guest:
    """A sibling of node 0: its launches begin once the store is there.

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
        timeout: SlotTimeout,
        sleep: Callable[[float], None],
        stopped: Callable[[], bool],
        draw: Callable[[], float],
    ) -> None:
        self._node = node
        self._ti = ti
        self._log = log
        self._timeout = timeout
        self._sleep = sleep
        self._stopped = stopped
        self._draw = draw
        self._said = ""
        self._view: GangView | None = None

    def meet(self, config: LaunchConfig) -> LaunchConfig:
        """``config`` for one launch, at the store that node 0 hosts now.

        :raises HostMissingError: node 0 did not host within the timeout.
        :raises NotNeededError: the job has succeeded meanwhile.
        :raises AirflowFailException: node 0 can never come.
        :raises StoppedError: the task is to stop.
        """
        began = time.monotonic()
        pause = _SOONEST
        while True:
            notice, why = self._look()
            if notice is not None:
                self._log.info(
                    "node %d, try %d (%s), hosts the job's store at %s",
                    HOST,
                    notice.try_number,
                    notice.ti_id,
                    notice.endpoint,
                )
                self._said = ""
                options = {"is_host": False, "door": notice.secret}
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
                raise HostMissingError(f"no store to meet at for {waited:.0f} s: {why}")
            left = (absent if waited < absent else started) - waited
            self._sleep(min(pause * (0.5 + self._draw()), left))
            pause = min(2 * pause, _LATEST)
            if self._stopped():
                raise StoppedError(f"stopped while it waited: {why}")

    def _look(self) -> tuple[Notice | None, str]:
        """The notice of a host that answers; without one, why there is none."""
        from airflow.sdk.exceptions import (
            AirflowFailException,
            AirflowRuntimeError,
            AirflowSkipException,
        )

        try:
            view = self._view = self._node.view(self._ti, host=HOST)
            notices = map(Notice.of, pull_all(self._ti, self._node.key.task_id, NOTICE))
        except AirflowRuntimeError as error:  # one look among many
            self._view = None
            return None, f"Airflow does not say how node {HOST} is: {error}"
        match outlook(view):
            case GangDone(why):
                raise NotNeededError(why)
            case GangHopeless(why, skipped):
                raise AirflowSkipException(why) if skipped else AirflowFailException(why)
            case _:
                pass
        notice = next((one for one in notices if one is not None), None)
        match look(view.states[HOST], notice, machine_id()):
            case Wait(why):
                return None, why
            case Try(notice):
                why = self._knock(notice)
                return (None, why) if why else (notice, "")

    def _gives_up(self, waited: float) -> bool:
        """Whether this node gives its slot back, by the last look."""
        if self._view is None:
            return False
        return isinstance(decide_slot(self._view, waited, self._timeout), GiveSlotBack)

    def _knock(self, notice: Notice) -> str:
        """Empty if the agent that left ``notice`` answers, else what is wrong."""
        try:
            knock(*notice.address, notice.secret, _KNOCK).close()
        except (OSError, WrongDoorError) as error:
            return (
                f"the address that node {HOST} left in its try {notice.try_number}, "
                f"{notice.endpoint}, is not its own any more, or not yet reached ({error})"
            )
        return ""
