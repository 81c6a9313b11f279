"""Looks an Airflow connection up by its name, and reads where nodes meet from it. Imported when a
task runs, not by a DAG file.
"""

from __future__ import annotations

from typing import Any

from airflow.sdk import BaseHook
from airflow.sdk.exceptions import AirflowNotFoundException
from airflow.sdk.log import mask_secret

from airflow_provider.hooks.ledger_connection import settings_of
from airflow_provider.parameters.missing_connection import NOT_SAID, connection_is_missing
from airflow_provider.parameters.rendezvous import RendezvousSettings
from airflow_provider.parameters.shown_value import shown
from llutil.backends.table import BACKENDS, backend_of_connection
from llutil.errors import ConfigError, InfrastructureError

__all__ = ["connection_settings"]


def connection_settings(conn_id: str) -> RendezvousSettings:
    """What Airflow's connection ``conn_id`` says, from whichever secrets backend.

    :raises ConfigError: there is none, or it is of a type that no job can meet by, or wrong.
    :raises InfrastructureError: Airflow does not say now whether there is one.
    """
    connection = _connection(conn_id)
    backend = backend_of_connection(connection.conn_type)
    if backend is None:
        types = [one.connection_type for one in BACKENDS.values() if one.connection_type]
        wanted = " or ".join(map(repr, types))
        raise ConfigError(
            f"rdzv_conn_id is {conn_id!r}, a connection of type {connection.conn_type!r}; "
            f"wanted type {wanted}"
        )
    if connection.password:
        mask_secret(connection.password)
    return settings_of(connection, backend)


def _connection(conn_id: str) -> Any:
    cause: Exception
    given = f"rdzv_conn_id is {shown(conn_id)}"
    try:
        return BaseHook.get_connection(conn_id)
    except AirflowNotFoundException as error:
        if connection_is_missing(conn_id):
            text = f"{given}, but Airflow has no connection of that name"
            raise ConfigError(text) from error
        why, cause = NOT_SAID, error
    except Exception as error:  # noqa: BLE001 - the secrets backend may be the user's own
        why, cause = f"{type(error).__name__}: {error}", error
    text = f"{given}, and Airflow does not say whether there is such a connection: {why}"
    raise InfrastructureError(text) from cause
