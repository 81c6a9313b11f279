"""What an operator's parameters have come to, for the rendered fields that Airflow's UI shows.

The parameters are rendered by then. Connections and the deployment's defaults are looked up as for
the launch itself. What may hold a secret is left out: options, variables and the arguments.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from airflow.sdk.exceptions import AirflowException, AirflowRuntimeError

from airflow_provider.execution.dag_test import is_dag_test
from airflow_provider.execution.launch_task import LaunchTask
from airflow_provider.execution.task_run import TaskRun
from llutil.errors import LaunchError

__all__ = ["resolved_launch"]


def resolved_launch(operator: LaunchTask, context: Mapping[str, Any]) -> dict[str, Any]:
    """Nodes, processes, backend, place and id of the rendezvous, and where its checkpoints go.

    If the parameters contradict each other, ``problem`` says so; the task fails with all of it.
    """
    given = operator.parameters()
    try:
        run = TaskRun(operator, context, lambda _: None)
        locally = given.get("gang_nodes") is not None and is_dag_test()
        found = given | run.rendezvous_parameters(given, locally=locally)
    except (LaunchError, AirflowException, AirflowRuntimeError, TypeError, ValueError) as error:
        return {"problem": str(error)}
    backend, endpoint = found.get("rdzv_backend"), found.get("rdzv_endpoint")
    least, _, most = str(found["nnodes"]).partition(":")
    nodes = least if most in {"", least} else f"{least}:{most}"
    alone = nodes == "1"
    shown = {
        "rendezvous_id": found.get("rdzv_id"),
        "nodes": nodes,
        "node": found.get("node_index"),
        "processes_per_node": found["nproc_per_node"],
        "backend": None if alone and not endpoint else backend,
        "endpoint": endpoint,
        "connection": found.get("rdzv_conn_id"),
        "start_method": found["start_method"],
        "max_restarts": found["max_restarts"],
        "checkpoint_path": None
        if found["checkpoint_path"] is None
        else str(found["checkpoint_path"]),
        "python": found.get("python"),
    }
    return {name: value for name, value in shown.items() if value not in (None, "")}
