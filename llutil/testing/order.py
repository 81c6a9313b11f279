"""What a test tells the process of a node, and what that answers.

This module may import values of the launcher.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from llutil.entrypoint import PickledCall
from llutil.launcher.config import LaunchConfig

__all__ = ["Order", "Outcome"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What to launch. ``path`` is where the test's process looks for modules."""

    config: LaunchConfig
    entrypoint: PickledCall | str
    args: list[Any]
    path: list[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How it ended: with ``values``, by a signal (``stopped``), or by the ``error``."""

    values: dict[int, Any] = field(default_factory=dict)
    stopped: bool = False
    error: str = ""
