"""What a leader keeps of the reports on a round."""

from __future__ import annotations

from llutil.failure import FailureClass
from llutil.rendezvous.protocol.records import Report, ReportKind
from llutil.rendezvous.protocol.round_reports import RoundReports
from tests.support.rendezvous_values import job_failure, report

MEMBERS = ("a.1", "b.1", "c.1")
WELL, BACK, STOP = ReportKind.SUCCEEDED, ReportKind.BACK, ReportKind.STOP


def failed(name: str, *, echo: bool = False, fatal: bool = False) -> Report:
    told = job_failure(
        name, fatal=fatal, echo=echo, failure_class=FailureClass.INFRASTRUCTURE, label=name
    )
    return report(name, ReportKind.FAILED, job_failure=told)


def test_only_what_a_view_adds_is_new() -> None:
    reports = RoundReports.of(MEMBERS, [])
    a, b, c = report("a", WELL), report("b", BACK), report("c", STOP)
    assert reports.note((a,)) == [a]
    assert reports.note((a, b, c)) == [b, c]
    assert reports.note((a, b, c)) == []
    assert reports.note((report("a", WELL), report("b", BACK), c)) == [], "as a read finds them"
    assert (set(reports.ends), reports.succeeded) == ({"a.1"}, {"a.1"})
    assert (reports.back, set(reports.stops)) == ({"b.1"}, {"c.1"})


def test_a_view_that_shows_them_in_another_way_loses_none() -> None:
    reports = RoundReports.of(MEMBERS, [])
    a, b, c = (report(name, WELL) for name in "abc")
    reports.note((a, b))
    assert reports.note((c, a)) == [c]
    assert reports.all_succeeded


def test_who_has_no_seat_neither_succeeds_nor_fails_but_may_come_and_stop() -> None:
    reports = RoundReports.of(MEMBERS, [failed("x"), report("y", WELL)])
    assert not reports.ends
    assert reports.failure is None
    reports.note((report("x", BACK), report("y", STOP)))
    assert (reports.back, set(reports.stops)) == ({"x.1"}, {"y.1"})


def test_a_round_without_seats_has_not_succeeded() -> None:
    assert not RoundReports().all_succeeded


def test_the_failure_that_counts_is_kept_as_reports_come() -> None:
    reports = RoundReports.of(MEMBERS, [])
    for told, counts in (
        (failed("b", echo=True), "b.1"),
        (failed("a"), "a.1"),
        (failed("c", fatal=True), "c.1"),
    ):
        reports.add(told)
        assert reports.failure is not None
        assert reports.failure.node == counts
    kept = RoundReports.of(MEMBERS, [failed("a"), failed("b", echo=True), failed("c")])
    assert kept.failure is not None
    assert kept.failure.node == "a.1"
