"""Room llutil/agent/failures."""
