"""Room llutil/events."""
