"""``ZooKeeperHook``: an Airflow connection of type ``zookeeper``. It connects to nothing itself;
see ``LedgerHook``.
"""

from __future__ import annotations

from airflow_provider.hooks.ledger_connection import LedgerHook
from llutil.backends.table import ZEUS_ADAPTER

__all__ = ["ZooKeeperHook"]


class ZooKeeperHook(LedgerHook):
    """Reads a connection of type ``zookeeper``, for ``rdzv_backend="zeus-adapter"``.

    The connection's fields: *host* holds one server or several, ``zk-0:2181,zk-1:2181``; a server
    without a port has that of the field *port*, or 2181. *login* and *password* are ZooKeeper's
    digest authentication, or SASL's with ``sasl_mechanism``. *extra* is a JSON object with any
    other options of the backend, and ``chroot``, which may also follow the hosts:
    ``zk-0:2181,zk-1:2181/jobs``. As JSON, for a secrets backend or an environment variable::

        {"conn_type": "zookeeper", "host": "zk-0:2181,zk-1:2181",
         "login": "train", "password": "...",
         "extra": {"chroot": "/jobs", "cacert": "/etc/zookeeper/ca.pem"}}

    Airflow does not read a URI with a comma in it (3.3), unless the comma is written as ``%2C``.

    :param zookeeper_conn_id: the connection's id.
    """

    conn_name_attr = "zookeeper_conn_id"
    default_conn_name = "zookeeper_default"
    conn_type = ZEUS_ADAPTER.connection_type
    hook_name = "ZooKeeper"
    backend = ZEUS_ADAPTER

    def __init__(self, zookeeper_conn_id: str = default_conn_name) -> None:
        super().__init__(zookeeper_conn_id)
        self.zookeeper_conn_id = zookeeper_conn_id
