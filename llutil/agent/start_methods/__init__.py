"""Room llutil/agent/start_methods."""
