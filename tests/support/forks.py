"""Forks of the test run itself, which has torch and gRPC imported."""

from __future__ import annotations

from llutil.system.gc_pause import fork_without_gc as fork

__all__ = ["fork"]
