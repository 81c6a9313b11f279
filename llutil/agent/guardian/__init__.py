"""Room llutil/agent/guardian."""
