"""Room llutil/agent/workers."""
