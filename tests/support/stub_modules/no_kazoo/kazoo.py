"""Found in the place of kazoo where that is not installed."""

raise ModuleNotFoundError("No module named 'kazoo'", name="kazoo")
