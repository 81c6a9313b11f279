"""From the name of an Airflow connection to the place that it means. Imported when a task runs, not
by a DAG file.
"""

from __future__ import annotations

from airflow.sdk import BaseHook
from airflow.sdk.exceptions import AirflowNotFoundException
from airflow.sdk.log import mask_secret

from airflow_provider.hooks.etcd import EtcdHook
from airflow_provider.hooks.zookeeper import ZooKeeperHook
from airflow_provider.parameters.rendezvous import RendezvousPlace
from llutil.errors import ConfigError

__all__ = ["connected"]

_KINDS = {hook.conn_type: hook.kind for hook in (EtcdHook, ZooKeeperHook)}


def connected(conn_id: str) -> RendezvousPlace:
    """What Airflow's connection ``conn_id`` says, from whichever secrets backend.

    :raises ConfigError: there is none, or it is of a type that no job can meet by, or wrong.
    """
    try:
        connection = BaseHook.get_connection(conn_id)
    except AirflowNotFoundException as error:
        raise ConfigError(
            f"rdzv_conn_id is {conn_id!r}, but Airflow has no connection of that name"
        ) from error
    kind = _KINDS.get(connection.conn_type)
    if kind is None:
        wanted = " or ".join(map(repr, _KINDS))
        raise ConfigError(
            f"rdzv_conn_id is {conn_id!r}, a connection of type {connection.conn_type!r}; wanted type {wanted}"
        )
    if connection.password:
        mask_secret(connection.password)
    return kind.place(connection)
