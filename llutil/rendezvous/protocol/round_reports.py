"""What the nodes have reported on one round, as the leader sees it.

Reports never change, and views of them only grow, except that wishes are deleted once they are
heard. A leader looks at all of them whenever one of a thousand nodes reports; what it has noted
before costs nothing again. This module may import nothing but the standard library,
``llutil.failure`` and the room's records.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Self

from llutil.failure import JobFailure, first_failure
from llutil.rendezvous.protocol.gate_records import Wish
from llutil.rendezvous.protocol.records import Report, ReportKind

__all__ = ["RoundReports", "describe_failure", "failure_of"]


@dataclass(slots=True)
class RoundReports:
    """The reports on a round of ``seats``. What others than its members report of their workers
    counts for nothing.
    """

    seats: frozenset[str] = frozenset()
    ends: dict[str, Report] = field(default_factory=dict)
    """Success or failure, by member."""
    succeeded: set[str] = field(default_factory=set)
    """The members that have reported success."""
    failure: Report | None = None
    """The report of the failure that counts: of those that the ledger took first, one that is no
    echo, and before all others one that no restart can mend.
    """
    back: set[str] = field(default_factory=set)
    """The nodes that are ready for the next round."""
    stops: dict[str, Report] = field(default_factory=dict)
    """Requests to stop the whole job, by node."""
    wishes: list[Wish] = field(default_factory=list)
    """What the members wish, in the ledger's order, without what is heard for good."""
    _heard: dict[str, int] = field(default_factory=dict)
    """The last wish of each member that is heard for good, by its number. A view may still show
    such a wish, or show it again: a node that gets no answer writes it anew.
    """
    _seen: tuple[Report | Wish, ...] = ()

    @classmethod
    def of(cls, seats: Iterable[str], reports: Iterable[Report | Wish]) -> Self:
        """These reports on a round of ``seats``."""
        found = cls(frozenset(seats))
        for report in reports:
            found.add(report)
        return found

    @property
    def all_succeeded(self) -> bool:
        """Whether every member has reported success."""
        return bool(self.seats) and len(self.succeeded) == len(self.seats)

    def note(self, reports: tuple[Report | Wish, ...]) -> list[Report | Wish]:
        """Note all reports that a view shows, in the ledger's order. Returns the new ones."""
        seen = self._seen
        # The same objects, so this compares no reports.
        new = reports[len(seen) :] if reports[: len(seen)] == seen else reports
        self._seen = reports
        return [report for report in new if self.add(report)]

    def forget_wishes(self, heard: Iterable[tuple[str, int]]) -> None:
        """The wishes of these nodes up to these numbers are heard for good."""
        self._heard = dict(heard)
        self.wishes = [one for one in self.wishes if one.number > self._heard.get(one.node, 0)]

    def add(self, report: Report | Wish) -> bool:
        """Note a report. Returns whether it was new."""
        node = report.node
        if isinstance(report, Wish):
            is_open = report.number > self._heard.get(node, 0)
            new = is_open and node in self.seats and report not in self.wishes
            self.wishes += [report] if new else []
            return new
        match report.say:
            case ReportKind.BACK:
                new = node not in self.back
                self.back.add(node)
                return new
            case ReportKind.STOP:
                new = node not in self.stops
                self.stops[node] = report
                return new
            case say:
                if node not in self.seats or node in self.ends:
                    return False
                self.ends[node] = report
                if say is ReportKind.SUCCEEDED:
                    self.succeeded.add(node)
                else:
                    known = [self.failure] if self.failure else []
                    self.failure = first_failure([*known, report], failure_of)
                return True


def failure_of(failed: Report) -> JobFailure:
    """What the node of a report of failure says."""
    return failed.job_failure or JobFailure()


def describe_failure(failed: Report) -> str:
    """A failure in words."""
    why = failure_of(failed).why
    return f"{failed.node} failed: {why}" if why else f"{failed.node} failed"
