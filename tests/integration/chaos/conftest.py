"""The fixtures of the plugin, wherever it is not installed as such yet."""

from llutil.testing.plugin import elastic_chaos

__all__ = ["elastic_chaos"]
