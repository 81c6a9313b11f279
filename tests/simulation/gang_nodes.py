"""Gangs and nodes in the world of ``gang_pool``, and what they decide by: the provider's code."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from airflow_provider.gang.reschedule import (
    SlotTimeout,
    after_failed_rendezvous,
    decide_slot,
    next_attempt,
    slot_timeout,
)
from airflow_provider.gang.siblings import GangView
from airflow_provider.gang.success_note import SuccessNote

__all__ = ["Broken", "Decisions", "Gang", "Node"]


class Broken(AssertionError):
    """A property does not hold; the text begins with its name."""


@dataclass(frozen=True, slots=True)
class Decisions:
    """What a node decides by."""

    slot_timeout: Callable[..., SlotTimeout] = slot_timeout
    decide_slot: Callable[..., Any] = decide_slot
    after_failed_rendezvous: Callable[..., Any] = after_failed_rendezvous
    next_attempt: Callable[..., Any] = next_attempt


@dataclass(eq=False)
class Node:
    """A task instance, and its process while it has one. ``life`` counts its processes' phases:
    what was planned for an earlier one is void.
    """

    gang: Gang
    number: int
    state: str | None = None
    note: SuccessNote | None = None
    retries: int = 0
    life: int = 0
    began: float = 0.0
    """When its process began, or its last round ended."""
    first_reschedule: float | None = None
    reschedules: int = 0
    launches: int = 0
    joined: bool = False
    waits_since: float | None = None
    """Since when its rendezvous, or its wait for node 0, has gone on without a round."""
    timeout: SlotTimeout = field(default_factory=lambda: SlotTimeout(absent=0, started=0))


@dataclass(eq=False)
class Gang:
    """A gang and its job. ``server``: node 0, if it serves the ledger."""

    name: str
    size: int
    min_nodes: int
    timeout: float
    server: int | None = None
    gang_timeout: float = 86400.0
    duration: float = 60.0
    nodes: list[Node] = field(default_factory=list)
    members: list[Node] = field(default_factory=list)
    """Those of the round that runs."""
    call: int = 0

    def view(self, node: Node) -> GangView:
        """What ``node`` sees of it."""
        return GangView(
            node=node.number,
            nodes=self.size,
            min_nodes=self.min_nodes,
            rerun_token="0@2026",
            states={other.number: other.state for other in self.nodes},
            notes={other.number: other.note for other in self.nodes if other.note},
            server=self.server,
        )
