"""What Airflow is told about this provider: its names, and where its classes are.

Airflow reads this in every one of its processes, so it imports nothing and lists only what exists.
"""

from __future__ import annotations

from typing import Any

__all__ = ["get_provider_info"]

_INTEGRATION = "PyTorch elastic launch"


def _field(label: str, description: str, kind: str = "string") -> dict[str, Any]:
    """A field of a connection's form, which may be left empty."""
    return {"label": label, "description": description, "schema": {"type": [kind, "null"]}}


_TLS_AND_TIMES: dict[str, Any] = {
    "cacert": _field("CA file", "PEM file on the workers; TLS is used if and only if it is given"),
    "cert": _field(
        "Certificate file", "PEM file on the workers, if the servers want to know clients"
    ),
    "key": _field("Key file", "PEM file on the workers, unencrypted, of the certificate"),
    "timeout": _field("Timeout", "Seconds until a round that does not form is given up", "number"),
    "last_call_timeout": _field(
        "Last call", "Seconds that the least number of nodes waits for more", "number"
    ),
    "lease_ttl": _field("Lease", "Seconds that a node outlives its last sign of life", "number"),
}

_ETCD: dict[str, Any] = {
    "connection-type": "etcd",
    "hook-name": "etcd",
    "hook-class-name": "airflow_provider.hooks.etcd.EtcdHook",
    "ui-field-behaviour": {
        "hidden-fields": ["schema", "port"],
        "relabeling": {"host": "Endpoints", "login": "User"},
        "placeholders": {"host": "etcd-0:2379,etcd-1:2379,etcd-2:2379"},
    },
    "conn-fields": {
        "namespace": _field("Prefix", "The folder of etcd that this deployment has for itself"),
        "server_name": _field(
            "Server name", "The name in etcd's certificate, if it is another one"
        ),
        **_TLS_AND_TIMES,
    },
}

_ZOOKEEPER: dict[str, Any] = {
    "connection-type": "zookeeper",
    "hook-name": "ZooKeeper",
    "hook-class-name": "airflow_provider.hooks.zookeeper.ZooKeeperHook",
    "ui-field-behaviour": {
        "hidden-fields": ["schema", "port"],
        "relabeling": {"host": "Servers", "login": "User"},
        "placeholders": {"host": "zk-0:2181,zk-1:2181,zk-2:2181"},
    },
    "conn-fields": {
        "chroot": _field("Chroot", "The node below which everything happens; it has to exist"),
        "namespace": _field(
            "Namespace", "The folder in the chroot that this deployment has for itself"
        ),
        "sasl_mechanism": _field(
            "SASL mechanism", "DIGEST-MD5, if user and password are SASL's; else they are a digest"
        ),
        **_TLS_AND_TIMES,
    },
}


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


_SECTION: dict[str, Any] = {
    "description": "Defaults of ElasticLaunchOperator and @task.elastic; a connection and a DAG file come first.",
    "options": {
        "rdzv_conn_id": _option(
            "string", "", "The connection that jobs of several nodes meet by if they name none."
        ),
        "namespace": _option(
            "string",
            "llutil",
            "The prefix under which this deployment's jobs meet. Deployments that share a store need one each.",
        ),
        "timeout": _option("float", "900", "Seconds until a round that does not form is given up."),
        "last_call_timeout": _option(
            "float", "30", "Seconds that the least number of nodes waits for more."
        ),
        "lease_ttl": _option("float", "10", "Seconds that a node outlives its last sign of life."),
        "results_path": _option(
            "string",
            "",
            "The folder of an object store, as a URI, for what ranks return and XCom should not hold.",
            "s3://conn_id@bucket/results",
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
