"""Room llutil/agent/output."""
