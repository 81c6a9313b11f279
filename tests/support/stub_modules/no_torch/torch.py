"""Found in the place of torch where its import would only take seconds."""

raise ImportError("no torch in this world")
