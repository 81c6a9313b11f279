"""``EtcdHook``: an Airflow connection of type ``etcd``. It connects to nothing itself; see
``LedgerHook``.
"""

from __future__ import annotations

from airflow_provider.hooks.ledger_connection import LedgerHook
from llutil.backends.table import ETCD

__all__ = ["EtcdHook"]


class EtcdHook(LedgerHook):
    """Reads a connection of type ``etcd``.

    The connection's fields: *host* holds one endpoint or several, ``etcd-0:2379,etcd-1:2379``; an
    endpoint without a port has that of the field *port*, or 2379. *login* and *password* are etcd's
    user. *extra* is a JSON object with any other options of the backend ``etcd``. As JSON, for a
    secrets backend or an environment variable::

        {"conn_type": "etcd", "host": "etcd-0:2379,etcd-1:2379",
         "login": "train", "password": "...",
         "extra": {"namespace": "prod", "cacert": "/etc/etcd/ca.pem"}}

    Airflow does not read a URI with a comma in it (3.3), unless the comma is written as ``%2C``.

    :param etcd_conn_id: the connection's id.
    """

    conn_name_attr = "etcd_conn_id"
    default_conn_name = "etcd_default"
    conn_type = ETCD.connection_type
    hook_name = "etcd"
    backend = ETCD

    def __init__(self, etcd_conn_id: str = default_conn_name) -> None:
        super().__init__(etcd_conn_id)
        self.etcd_conn_id = etcd_conn_id
