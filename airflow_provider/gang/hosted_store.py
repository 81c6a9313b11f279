"""A gang without a store of its own: the agent of node 0 hosts one for the job.

The nodes need nothing but Airflow to find each other. Node 0 binds the store when its agent starts,
and pushes a ``Notice`` of its address to XCom. A sibling looks for the notice as long as it may
hold its slot. It starts its own agent once Airflow says that node 0 runs, and the store at that
address has proved that the agent of the notice owns it
(``llutil.rendezvous.hosted.store_handshake``). A notice may come from an earlier try, an earlier
launch or a task that was killed. Then nobody answers, or somebody else, and the sibling goes on
looking. If node 0 is lost, they look again for the notice of its next try.

The gang cannot go on without node 0. The functions here decide from values; ``Host`` and ``Guest``
act. Airflow is imported inside functions.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any
from urllib.parse import urlsplit

from airflow_provider.gang.node import GangDone, GangHopeless, GangNode
from airflow_provider.gang.xcom_values import VERSION, pull_all, value_of
from llutil.backends.table import C10D
from llutil.errors import ConfigError, LaunchError, RendezvousError, StoppedError
from llutil.launcher.config import LaunchConfig
from llutil.rendezvous.hosted.store_handshake import WrongDoorError, knock, new_secret
from llutil.system.addresses import host_and_port, is_loopback, local_address, machine_id

__all__ = [
    "HOST",
    "NOTICE",
    "Guest",
    "Host",
    "HostMissingError",
    "NotNeededError",
    "Notice",
    "Try",
    "Wait",
    "hosted_place",
    "is_hosted",
    "look",
    "own_address",
]

NOTICE = "gang_host"
"""The XCom key of node 0's notice."""

HOST = 0
"""The node that hosts."""

# It stands for the endpoint, which is only known once node 0 runs.
_PLACE = "node-0:0"
# Seconds for the handshake with the store.
_KNOCK = 3.0
# Seconds between two looks for a notice, without jitter: the least and the most.
_SOONEST, _LATEST = 0.5, 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """Where a try of node 0 hosts the store.

    ``secret`` is that of its launch. ``machine`` is the id of its machine (``machine_id``).
    """

    ti_id: str
    try_number: int
    rerun_token: str
    endpoint: str
    secret: str = field(repr=False)
    machine: str

    def to_json(self) -> dict[str, Any]:
        """The notice as it is stored in XCom."""
        return asdict(self) | {"version": VERSION}

    @classmethod
    def of(cls, value: Any) -> Notice | None:
        """The notice in an XCom value; None if the value is not a notice."""
        found = value_of(cls, value)
        return found if found and found.endpoint.rpartition(":")[2].isdecimal() else None

    @property
    def address(self) -> tuple[str, int]:
        """The host and port of the store."""
        host, _, port = self.endpoint.rpartition(":")
        return host.strip("[]"), int(port)


@dataclass(frozen=True, slots=True)
class Try:
    """Try the handshake with the store of ``notice``."""

    notice: Notice


@dataclass(frozen=True, slots=True)
class Wait:
    """Look again later."""

    why: str


def look(state: str | None, notice: Notice | None, machine: str) -> Try | Wait:
    """What a sibling does, by the state and the notice of node 0; ``machine`` is its own id.

    :raises ConfigError: the address cannot be reached from this machine.
    """
    if state != "running":
        return Wait(f"node {HOST} is {state or 'not scheduled yet'}")
    if notice is None:
        return Wait(f"node {HOST} has not said yet where it hosts the job's store")
    host, _ = notice.address
    if is_loopback(host) and notice.machine != machine:
        raise ConfigError(
            f"node {HOST} hosts the job's store at the loopback address {notice.endpoint}, which "
            "leads nowhere from this worker. It took the address of its route to Airflow's API "
            "server; let [core] execution_api_server_url have an address that is the same from "
            "everywhere, or give local_addr"
        )
    return Try(notice)


class HostMissingError(RendezvousError):
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

    :param timeout: seconds that one launch waits for that.
    :param sleep: waits for so many seconds, or until the task is to stop, which ``stopped`` tells.
    :param draw: a random number from 0 to 1.
    """

    def __init__(
        self,
        node: GangNode,
        ti: Any,
        log: logging.Logger,
        *,
        timeout: float,
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

    def meet(self, config: LaunchConfig) -> LaunchConfig:
        """``config`` for one launch, at the store that node 0 hosts now.

        :raises HostMissingError: node 0 did not host within the timeout.
        :raises NotNeededError: the job has succeeded meanwhile.
        :raises AirflowFailException: node 0 can never come.
        :raises StoppedError: the task is to stop.
        """
        deadline = time.monotonic() + self._timeout
        pause = _SOONEST
        while True:
            found = self._look()
            why = self._knock(found.notice) if isinstance(found, Try) else found.why
            if isinstance(found, Try) and not why:
                notice = found.notice
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
            left = deadline - time.monotonic()
            if left <= 0:
                raise HostMissingError(f"no store to meet at for {self._timeout:g} s: {why}")
            self._sleep(min(pause * (0.5 + self._draw()), left))
            pause = min(2 * pause, _LATEST)
            if self._stopped():
                raise StoppedError(f"stopped while it waited: {why}")

    def _look(self) -> Try | Wait:
        from airflow.sdk.exceptions import AirflowFailException

        match self._node.outlook(self._ti, host=HOST):
            case GangDone(why):
                raise NotNeededError(why)
            case GangHopeless(why):
                raise AirflowFailException(why)
            case _:
                pass
        notices = map(Notice.of, pull_all(self._ti, self._node.key.task_id, NOTICE))
        notice = next((one for one in notices if one is not None), None)
        return look(self._node.states(self._ti)[HOST], notice, machine_id())

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
