"""A gang without a connection: node 0 serves the job's ledger to its siblings.

The nodes need nothing but Airflow to find each other. The agent of node 0 serves the ledger at an
address of its worker, and node 0 pushes a ``LedgerNotice`` of that to XCom. A sibling looks for the
notice before it starts an agent of its own: see ``airflow_provider.gang.sibling_node``.

``ServingNode`` acts; Airflow is imported inside functions.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Mapping
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

from airflow_provider.gang.ledger_notice import NOTICE, LedgerNotice
from airflow_provider.gang.node import GangNode
from llutil.backends.table import SERVED
from llutil.errors import InfrastructureError
from llutil.launcher.config import LaunchConfig
from llutil.system.addresses import host_and_port, local_address, machine_id

__all__ = ["ServingNode", "is_served", "new_secret", "own_address", "served_place"]

# It stands for the endpoint, which is only known once node 0 runs.
_PLACE = "node-0:0"


def served_place(configs: Mapping[str, Any]) -> dict[str, Any]:
    """The rendezvous parameters of a gang whose node 0 serves the ledger, before it does.

    ``configs`` are the deployment's default ``rdzv_configs``.
    """
    shared = {option.key: configs[option.key] for option in SERVED.options if option.key in configs}
    return {"rdzv_backend": SERVED.name, "rdzv_endpoint": _PLACE, "rdzv_configs": shared}


def is_served(config: LaunchConfig) -> bool:
    """Whether ``config`` is that of a gang whose node 0 serves the ledger."""
    return config.rdzv_backend == SERVED.name and config.rdzv_endpoint == _PLACE


def new_secret() -> str:
    """The secret of one launch."""
    return secrets.token_hex(16)


def own_address() -> str:
    """This worker's address on its route to Airflow's API server, which all nodes of a gang reach.

    :raises InfrastructureError: there is none now. The task itself has reached that server.
    """
    from airflow.sdk.configuration import conf

    base = conf.get("api", "base_url", fallback="") or "/"
    if base.startswith("/"):  # as Airflow completes it (3.3)
        base = "http://localhost:8080"
    url = urlsplit(conf.get("core", "execution_api_server_url", fallback="") or base)
    try:
        return local_address(url.hostname or "", url.port or 443)
    except OSError as error:
        raise InfrastructureError(
            "no address of this worker could be found for the other nodes: no route to Airflow's "
            f"API server at {url.hostname!r} ({error}); give local_addr"
        ) from error


class ServingNode:
    """Node 0: each of its launches serves a new ledger for the job."""

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
            rdzv_configs={**config.rdzv_configs, "serves": True, "secret": self._secret},
        )

    def publish(self, endpoint: str) -> None:
        """Tell the siblings where the ledger is; it is served already.

        :raises InfrastructureError: Airflow does not take it, though its client tried for a while.
        """
        notice = LedgerNotice(
            ti_id=str(self._ti.id),
            try_number=self._ti.try_number,
            rerun_token=self._node.rerun_token,
            endpoint=endpoint,
            secret=self._secret,
            machine=machine_id(),
        )
        try:
            self._ti.xcom_push(key=NOTICE, value=notice.to_json())
        except Exception as error:  # the XCom backend may be the user's own
            raise InfrastructureError(
                "Airflow does not take where the other nodes find the ledger of this gang (the "
                f"XCom {NOTICE!r}): {type(error).__name__}: {error}"
            ) from error
        self._log.info("the other nodes find the ledger by the XCom %r", NOTICE)
