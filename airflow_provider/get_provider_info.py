"""What Airflow is told about this provider: its names, and where its classes are.

Airflow reads this in every one of its processes, so it imports plain values alone, and lists only
what exists. A connection's fields and a deployment's options are those of ``llutil.backends``.
"""

from __future__ import annotations

from typing import Any

from llutil.backends.backend import Backend
from llutil.backends.options import Kind, Option
from llutil.backends.table import DEPLOYMENT_OPTIONS, ETCD, ZEUS_ADAPTER

__all__ = ["get_provider_info"]

_INTEGRATION = "PyTorch elastic launch"


_TYPES = {
    Kind.SECONDS: "number",
    Kind.SECONDS_FROM_ZERO: "number",
    Kind.COUNT: "integer",
    Kind.FLAG: "boolean",
    Kind.TEXT: "string",
}
"""JSON schema's types."""


def _sentence(option: Option) -> str:
    return option.text[:1].upper() + option.text[1:].replace("`", "")


def _connection_type(
    backend: Backend, hook_name: str, hook_class: str, servers: str, placeholder: str
) -> dict[str, Any]:
    """A type of connections and its form, whose fields may be left empty."""
    fields = {
        option.key: {
            "label": option.label,
            "description": _sentence(option),
            "schema": {"type": [_TYPES[option.kind], "null"]},
        }
        for option in backend.connection_options
    }
    return {
        "connection-type": backend.connection_type,
        "hook-name": hook_name,
        "hook-class-name": hook_class,
        "ui-field-behaviour": {
            "hidden-fields": ["schema", "port"],
            "relabeling": {"host": servers, "login": "User"},
            "placeholders": {"host": placeholder},
        },
        "conn-fields": fields,
    }


_ETCD = _connection_type(
    ETCD,
    hook_name="etcd",
    hook_class="airflow_provider.hooks.etcd.EtcdHook",
    servers="Endpoints",
    placeholder="etcd-0:2379,etcd-1:2379,etcd-2:2379",
)
_ZOOKEEPER = _connection_type(
    ZEUS_ADAPTER,
    hook_name="ZooKeeper",
    hook_class="airflow_provider.hooks.zookeeper.ZooKeeperHook",
    servers="Servers",
    placeholder="zk-0:2181,zk-1:2181,zk-2:2181",
)


def _option(
    kind: str, default: str, description: str, example: str | None = None
) -> dict[str, Any]:
    return {
        "type": kind,
        "default": default,
        "description": description,
        "version_added": "0.1.0",
        "example": example,
    }


def _deployment_option(option: Option) -> dict[str, Any]:
    if option.kind.is_duration:
        return _option("float", f"{option.default:g}", f"{_sentence(option)}.")
    return _option("string", str(option.default), f"{_sentence(option)}.")


_SECTION: dict[str, Any] = {
    "description": "Defaults of ElasticLaunchOperator and @task.elastic; a connection and a DAG "
    "file come first.",
    "options": {
        "rdzv_conn_id": _option(
            "string", "", "The connection that jobs of several nodes meet by if they name none."
        ),
        **{key: _deployment_option(option) for key, option in DEPLOYMENT_OPTIONS.items()},
        "results_path": _option(
            "string",
            "",
            "The folder of an object store, as a URI, for what ranks return and XCom should not "
            "hold.",
            "s3://conn_id@bucket/results",
        ),
        "keep_agents_ready": _option(
            "float",
            "0",
            "For so many seconds after a task's agent, a worker's host keeps a process that has "
            "torch imported and forks the agent of the next task; 0 keeps none. Read on each "
            "worker's host; without effect where tasks run in containers of their own.",
            "900",
        ),
    },
}


def get_provider_info() -> dict[str, Any]:
    """The provider's metadata, in the form of Airflow's ``provider_info.schema.json``."""
    return {
        "package-name": "airflow-provider-elastic-launch",
        "name": "Elastic launch",
        "description": "Elastic, fault-tolerant PyTorch on Apache Airflow's own workers",
        "integrations": [
            {
                "integration-name": _INTEGRATION,
                "external-doc-url": "https://pytorch.org/docs/stable/distributed.elastic.html",
                "tags": ["software"],
            }
        ],
        "operators": [
            {
                "integration-name": _INTEGRATION,
                "python-modules": ["airflow_provider.operators.elastic"],
            }
        ],
        "hooks": [
            {
                "integration-name": _INTEGRATION,
                "python-modules": [
                    "airflow_provider.hooks.agent",
                    "airflow_provider.hooks.etcd",
                    "airflow_provider.hooks.zookeeper",
                ],
            }
        ],
        "connection-types": [_ETCD, _ZOOKEEPER],
        "config": {"elastic_launch": _SECTION},
        "task-decorators": [
            {"name": "elastic", "class-name": "airflow_provider.decorators.elastic.elastic_task"}
        ],
    }
