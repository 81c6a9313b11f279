"""Room llutil/agent/worker_side."""
