"""Room llutil/system."""
