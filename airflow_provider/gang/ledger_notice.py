"""Where node 0 of a gang serves the job's ledger: the notice that it pushes to XCom, and whether a
sibling uses it. The functions here decide from values.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from airflow_provider.gang.xcom_values import VERSION, value_of
from llutil.errors import ConfigError
from llutil.system.addresses import is_loopback

__all__ = ["NOTICE", "SERVING_NODE", "LedgerNotice", "Try", "Wait", "launch_is_over", "look"]

NOTICE = "gang_ledger"
"""The XCom of node 0: where it serves the ledger, its task instance, and this launch's secret."""

SERVING_NODE = 0
"""The node whose agent serves the ledger."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerNotice:
    """Where a launch of node 0 serves the ledger.

    ``secret`` is that of the launch. ``machine`` is the id of its machine (``machine_id``).
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
    def of(cls, value: Any) -> LedgerNotice | None:
        """The notice in an XCom value; None if the value is not a notice."""
        found = value_of(cls, value)
        return found if found and found.endpoint.rpartition(":")[2].isdecimal() else None

    @property
    def address(self) -> tuple[str, int]:
        """The address and port of the ledger."""
        address, _, port = self.endpoint.rpartition(":")
        return address.strip("[]"), int(port)


@dataclass(frozen=True, slots=True)
class Try:
    """Try the handshake with the ledger of ``notice``."""

    notice: LedgerNotice


@dataclass(frozen=True, slots=True)
class Wait:
    """Look again later."""

    why: str


def look(state: str | None, notice: LedgerNotice | None, machine: str) -> Try | Wait:
    """What a sibling does, by the state and the notice of node 0; ``machine`` is its own id.

    :raises ConfigError: the address cannot be reached from this machine.
    """
    if state != "running":
        return Wait(f"node {SERVING_NODE} is {state or 'not scheduled yet'}")
    if notice is None:
        return Wait(f"node {SERVING_NODE} has not said yet where it serves the job's ledger")
    address, _ = notice.address
    if is_loopback(address) and notice.machine != machine:
        raise ConfigError(
            f"node {SERVING_NODE} serves the job's ledger at the loopback address "
            f"{notice.endpoint}, which leads nowhere from this worker. It took the address of its "
            "route to Airflow's API server; let [core] execution_api_server_url have an address "
            "that is the same from everywhere, or give local_addr"
        )
    return Try(notice)


def launch_is_over(
    state: str | None, used: LedgerNotice, current: LedgerNotice | None
) -> str | None:
    """Why the launch of node 0 that left the notice ``used`` is over; None if it may go on.

    ``state`` and ``current`` are node 0's state and notice now. A next try, and a next launch in
    the same try, have a notice of their own. Airflow removes the notice of the last try when the
    next one begins.
    """
    launch = f"node {SERVING_NODE}, which served the job's ledger at {used.endpoint},"
    if state != "running":
        return f"{launch} is {state or 'not scheduled'} now"
    if current != used:
        return f"{launch} runs again, and that ledger is over"
    return None
