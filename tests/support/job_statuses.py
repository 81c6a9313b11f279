"""A node's status, as an agent answers it, with only what matters spelled out."""

from __future__ import annotations

from typing import Any

from llutil.agent_socket.messages import JobStatus, State

__all__ = ["job_status"]


def job_status(run_id: str = "run", **fields: Any) -> JobStatus:
    values: dict[str, Any] = {
        "run_id": run_id,
        "pid": 1,
        "host": "here",
        "entrypoint": "train.py",
        "state": State.RUNS,
        "nodes": 1,
        "world_size": 1,
        "restarts": 0,
        "max_restarts": 3,
        "seconds": 1.0,
    }
    return JobStatus(**(values | fields))
