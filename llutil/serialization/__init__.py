"""Room llutil/serialization."""
