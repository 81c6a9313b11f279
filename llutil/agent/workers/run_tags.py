"""What MLflow adds to the runs that ranks log: of which job they are, and how it was started.

MLflow reads tags from a variable of its own whenever a run is begun (MLflow 1.0 to 3:
``mlflow.tracking.context.SystemEnvironmentContext``). TensorBoard reads none. This module may
import only the standard library; nothing of ours imports MLflow.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

__all__ = ["VARIABLE", "run_tags"]

VARIABLE = "MLFLOW_RUN_CONTEXT"
_RUN_ID = "llutil.run_id"


def run_tags(
    environ: Mapping[str, str], *, run_id: str, restarts: int, world_size: int
) -> dict[str, str]:
    """The variable for ranks; none if ``environ`` has one that somebody else has set."""
    if _RUN_ID not in environ.get(VARIABLE, _RUN_ID):
        return {}
    tags = {
        _RUN_ID: run_id,
        "llutil.restart_count": str(restarts),
        "llutil.world_size": str(world_size),
    }
    return {VARIABLE: json.dumps(tags)}
