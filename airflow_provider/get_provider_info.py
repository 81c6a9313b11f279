"""What Airflow is told about this provider: its names, and where its classes are.

Airflow reads this in every one of its processes, so it imports nothing and lists only what exists.
"""

from __future__ import annotations

from typing import Any

__all__ = ["get_provider_info"]

_INTEGRATION = "PyTorch elastic launch"


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
                "python-modules": ["airflow_provider.hooks.agent"],
            }
        ],
        "task-decorators": [
            {"name": "elastic", "class-name": "airflow_provider.decorators.elastic.elastic_task"}
        ],
    }
