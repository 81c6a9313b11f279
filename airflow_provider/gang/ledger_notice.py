"""Where node 0 of a gang hosts the job's store: the notice that it pushes to XCom, and whether a
sibling uses it. The functions here decide from values.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from airflow_provider.gang.xcom_values import VERSION, value_of
from llutil.errors import ConfigError
from llutil.system.addresses import is_loopback

__all__ = ["HOST", "NOTICE", "Notice", "Try", "Wait", "look"]

NOTICE = "gang_host"
"""The XCom key of node 0's notice."""

HOST = 0
"""The node that hosts."""


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
