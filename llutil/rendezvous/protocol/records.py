"""What nodes write into the ledger: records that are each written once and never changed.

A member record lives as long as its node's lease. Assignments, reports, verdicts and markers hang
on the generation's own long lease, so they outlive every node; so do the records by which ranks
agree on a step (``gate_records``). ``record_codec`` turns records into JSON, and checks what it
reads against the types here. This module may import nothing but the standard library, msgspec,
``llutil.failure`` and the modules of the room below it.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property

from msgspec import Struct

from llutil.failure import JobFailure
from llutil.rendezvous.protocol.gate_records import Gate, GateAnswer, GateDecision, Wish
from llutil.rendezvous.protocol.record_base import Count, Kind, OfRound, Stage

__all__ = [
    "Assignment",
    "Cause",
    "Marker",
    "Member",
    "RankAssignment",
    "Record",
    "Report",
    "ReportKind",
    "Seat",
    "Stage",
    "Verdict",
]


class Member(Kind, frozen=True, kw_only=True):
    """A node has joined, under this identity. The record is leased: the store deletes it when the
    node's lease ends.

    ``node`` is the identity; none is used twice. ``name`` is the same under all identities of a
    node. ``host`` is the id of its machine, ``address`` the address at which others reach it.
    ``index`` is its preferred position in the order of ranks, or None. ``token`` is the caller's
    rerun token. ``label`` is for people (in Airflow, the task instance's id).
    """

    node: str
    name: str
    host: str
    address: str
    role: str
    nproc: Count
    index: Count | None = None
    token: str = ""
    label: str = ""


class Seat(Struct, frozen=True, kw_only=True):
    """One member of a round, as the assignment lists it: the fields of its member record that
    others need.
    """

    node: str
    name: str
    address: str
    role: str
    nproc: Count
    token: str = ""
    label: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RankAssignment:
    """The ranks of one node's workers in a round: ``first_rank`` to ``first_rank + nproc - 1``."""

    group_rank: int
    group_world_size: int
    first_rank: int
    nproc: int
    world_size: int
    role: str
    first_role_rank: int
    role_world_size: int


class Assignment(OfRound, frozen=True, kw_only=True, dict=True):
    """A sealed round. Each node computes every rank from it, without asking anybody.

    ``seats`` are in the order of ranks. ``restarts`` counts the failures charged so far. ``host``
    and ``port`` are the bound address of the round's TCPStore, which the node ``by`` hosts.
    ``away`` are the nodes that were in an earlier round, still lived, and still had workers when
    this round was sealed.
    """

    restarts: Count
    seats: tuple[Seat, ...]
    host: str
    port: Count
    by: str
    away: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.nodes or len(self.node_set) != len(self.nodes):
            raise ValueError(f"seats of {list(self.nodes)}; wanted one seat or more, none twice")

    @cached_property
    def nodes(self) -> tuple[str, ...]:
        """The identities of the members, in the order of ranks."""
        return tuple(seat.node for seat in self.seats)

    @cached_property
    def node_set(self) -> frozenset[str]:
        """The same, without an order."""
        return frozenset(self.nodes)

    @cached_property
    def _seats_by_node(self) -> dict[str, Seat]:
        return {seat.node: seat for seat in self.seats}

    def seat(self, node: str) -> Seat | None:
        """The seat of ``node``, or None if it has none."""
        return self._seats_by_node.get(node)

    def ranks_of(self, node: str) -> RankAssignment:
        """The ranks of the workers of ``node``. :raises KeyError: ``node`` has no seat."""
        if node not in self.node_set:
            raise KeyError(f"{node!r} has no seat in {self.stage}; seated: {', '.join(self.nodes)}")
        return self._ranks_by_node[node]

    @cached_property
    def _ranks_by_node(self) -> dict[str, RankAssignment]:
        roles = Counter[str]()
        for seat in self.seats:
            roles[seat.role] += seat.nproc
        ranks: dict[str, RankAssignment] = {}
        given, given_in_role = 0, Counter[str]()
        for group_rank, seat in enumerate(self.seats):
            ranks[seat.node] = RankAssignment(
                group_rank=group_rank,
                group_world_size=len(self.seats),
                first_rank=given,
                nproc=seat.nproc,
                world_size=roles.total(),
                role=seat.role,
                first_role_rank=given_in_role[seat.role],
                role_world_size=roles[seat.role],
            )
            given += seat.nproc
            given_in_role[seat.role] += seat.nproc
        return ranks


class ReportKind(StrEnum):
    """What a report says.

    SUCCEEDED, FAILED: how this node's workers in this round ended (one of the two, once). BACK:
    this node's workers of earlier rounds are gone, and it is ready for the round after this one.
    STOP: somebody asked this node to stop the whole job.
    """

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    BACK = "back"
    STOP = "stop"


class Report(OfRound, frozen=True, kw_only=True):
    """What one node reports on one round.

    ``why`` is the reason for a stop, ``job_failure`` what went wrong in a failure. ``token`` is the
    node's rerun token.
    """

    node: str
    say: ReportKind
    why: str = ""
    token: str = ""
    job_failure: JobFailure | None = None


class Cause(StrEnum):
    """Why a round, or a generation, ended.

    SUCCEEDED: all members reported success. FAILED: a member's workers failed. LOST: a member was
    lost before it reported. GROWN: newcomers are let in. STOPPED: the job was asked to stop. LEFT:
    the last node left, and nobody said how the job went.
    """

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    LOST = "lost"
    GROWN = "grown"
    STOPPED = "stopped"
    LEFT = "left"


class Verdict(OfRound, frozen=True, kw_only=True):
    """How a round ended. A round gets one verdict, which never changes. ``final``: the generation's
    marker is written in the same transaction.

    ``nodes`` are the nodes that failed, were lost, or are let in. ``by`` is the node that wrote it.
    ``job_failure`` is what the failed node reported.
    """

    cause: Cause
    final: bool
    by: str
    why: str = ""
    nodes: tuple[str, ...] = ()
    job_failure: JobFailure | None = None


class Marker(OfRound, frozen=True, kw_only=True):
    """A generation is over. Nobody joins it again; a rerun opens the next one.

    ``round`` is its last round (0: none was sealed). ``nodes`` are the members of that round and
    its ``away`` nodes, ``labels`` the members' labels, ``tokens`` their rerun tokens.
    ``job_failure`` is what went wrong, if the job failed.
    """

    cause: Cause
    by: str
    why: str = ""
    nodes: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    tokens: tuple[str, ...] = ()
    job_failure: JobFailure | None = None

    def has_label(self, label: str) -> bool:
        """Whether one member of the last round had that label, and no other one had it."""
        return bool(label) and self.labels.count(label) == 1


Record = Member | Assignment | Report | Verdict | Marker | Wish | Gate | GateAnswer | GateDecision
