"""What a node needs to know to meet the others. Plain values; this module connects to nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from llutil.backends.backend import Backend
from llutil.backends.table import C10D

__all__ = ["RendezvousConfig"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RendezvousConfig:
    """Where and as whom a node meets the others. ``options`` are the backend's, all of them, as
    ``Backend.values`` gives them.

    ``token`` is the caller's rerun token, ``index`` the preferred place in the order of ranks,
    ``label`` what people call this node. ``max_restarts`` None leaves the restart budget to the
    agent.
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

    @property
    def embedded(self) -> bool:
        """Whether there is nobody to meet: one node, and no endpoint was named."""
        return self.max_nodes == 1 and not self.endpoint

    @property
    def has_ledger(self) -> bool:
        """Whether nodes agree through a ledger of ours, and not through a backend of torch's."""
        return self.backend.has_ledger and not self.embedded

    @property
    def hosted(self) -> bool:
        """Whether one of the nodes hosts the store, and the endpoint is that of its door."""
        return self.backend is C10D and "door" in self.options
