"""The configuration of one node's rendezvous: plain values. This module connects to nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from llutil.backends.backend import Backend
from llutil.backends.table import SERVED

__all__ = ["RendezvousConfig"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RendezvousConfig:
    """Where a node meets the others, and what it tells them about itself. ``options`` are all
    options of the backend, as ``Backend.values`` returns them.

    ``token`` is the caller's rerun token, ``index`` the preferred position in the order of ranks,
    ``label`` this node's name for people. ``max_restarts`` None means that the agent is torch's
    own: it counts restarts itself, and does not run again what succeeded. ``unique_run``: nobody
    else knows the run id, and nobody will use it again. ``saves_before_growth``: ranks save a
    checkpoint before somebody new is let in; for jobs that have a place for checkpoints.
    """

    backend: Backend
    endpoint: str
    run_id: str
    min_nodes: int
    max_nodes: int
    local_addr: str | None
    options: Mapping[str, Any] = field(repr=False)
    role: str = "default_role"
    nproc: int = 1
    max_restarts: int | None = None
    token: str = ""
    index: int | None = None
    label: str = ""
    unique_run: bool = False
    saves_before_growth: bool = False

    @property
    def embedded(self) -> bool:
        """Whether there is nobody to meet: the job has one node, and no endpoint is given."""
        return self.max_nodes == 1 and not self.endpoint

    @property
    def has_ledger(self) -> bool:
        """Whether nodes agree through a ledger of this package, not through torch's backends."""
        return self.backend.has_ledger and not self.embedded

    @property
    def served(self) -> bool:
        """Whether one of the nodes serves the ledger."""
        return self.backend is SERVED and not self.embedded
