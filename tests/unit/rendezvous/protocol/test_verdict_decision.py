"""When a round ends, and how: rules 5, 7 and 8."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from llutil.failure import FailureClass
from llutil.rendezvous.protocol.presence import Presence
from llutil.rendezvous.protocol.records import Cause, Report, ReportKind, Verdict
from llutil.rendezvous.protocol.round_reports import RoundReports
from llutil.rendezvous.protocol.seal_decision import NotYet
from llutil.rendezvous.protocol.verdict_decision import (
    Recheck,
    VerdictInput,
    decide_verdict,
)
from tests.support.rendezvous_values import job_failure, member, report, round_of, rules

FOREVER = float("inf")
MEMBERS = ("a.1", "b.1", "c.1")
ECHO: dict[str, Any] = {"echo": True, "failure_class": FailureClass.INFRASTRUCTURE}


def verdict_input(
    ends: str = "",
    living: str = "abc",
    *,
    busy: str = "abc",
    restarts: int = 0,
    checked: str = "",
    **others: Any,
) -> VerdictInput:
    """A round of a, b and c, of at most four; ``ends`` like "a+ b- c~": success, failure, echo.
    Those that are ``busy`` have workers of an earlier round.
    """
    reports = []
    for end in ends.split():
        name, how = end
        say = ReportKind.SUCCEEDED if how == "+" else ReportKind.FAILED
        told = None if how == "+" else job_failure("boom", **(ECHO if how == "~" else {}))
        reports.append(report(name, say, job_failure=told))
    members, busy = tuple(map(member, living)), frozenset(f"{name}.1" for name in busy)
    values: dict[str, Any] = {
        "me": "a.1",
        "parameters": rules(1, 4),
        "round": round_of("abc", restarts=restarts),
        "reports": RoundReports.of(MEMBERS, reports),
        "stop": None,
        "presence": Presence(members, busy),
        "checked": frozenset(f"{name}.1" for name in checked),
        "failed_since": 100.0,
    }
    return VerdictInput(**(values | others))


def kind(decision: Verdict | Recheck | NotYet) -> tuple[Any, ...]:
    match decision:
        case Verdict(cause=cause, final=final, nodes=nodes):
            return (cause, final, "".join(node[0] for node in nodes))
        case Recheck(nodes=nodes):
            return ("recheck", "".join(sorted(node[0] for node in nodes)))
        case NotYet(until=until):
            return ("hold", until)


FULL = rules(1, 3)
CASES = {
    "all goes well": (verdict_input(), ("hold", FOREVER)),
    "some have succeeded": (verdict_input("a+ b+"), ("hold", FOREVER)),
    "all have succeeded": (verdict_input("a+ b+ c+"), (Cause.SUCCEEDED, True, "abc")),
    "all have succeeded, and some are gone": (verdict_input("a+ b+ c+", ""), (Cause.SUCCEEDED, True, "abc")),
    "one has failed": (verdict_input("b-"), (Cause.FAILED, False, "b")),
    "one has failed, others have succeeded": (verdict_input("a+ b- c+"), (Cause.FAILED, False, "b")),
    "one is gone; has it reported?": (verdict_input("", "ab"), ("recheck", "c")),
    "one is gone, and has not reported": (verdict_input("", "ab", checked="c"), (Cause.LOST, False, "c")),
    "one is gone, and had succeeded": (verdict_input("c+", "ab"), ("hold", FOREVER)),
    "two are gone, one after success": (verdict_input("c+", "a", checked="b"), (Cause.LOST, False, "b")),
    "another is gone since the last check": (verdict_input("", "a", checked="c"), ("recheck", "bc")),
    "one came; has anybody succeeded?": (verdict_input("", "abcx"), ("recheck", "x")),
    "one came": (verdict_input("", "abcx", checked="x"), (Cause.GROWN, False, "x")),
    "one came after a success": (verdict_input("a+", "abcx", checked="x"), ("hold", FOREVER)),
    "one came, and all places are taken": (verdict_input("", "abcx", checked="x", parameters=FULL), ("hold", FOREVER)),
    "one came and has workers yet": (verdict_input("", "abcx", checked="x", busy="abcx"), ("hold", FOREVER)),
    "one came and one is gone": (verdict_input("", "abx", checked="cx"), (Cause.LOST, False, "c")),
    "a stop": (verdict_input(stop="enough"), (Cause.STOPPED, True, "")),
    "a stop and a failure": (verdict_input("a-", stop="enough"), (Cause.STOPPED, True, "")),
    "a stop after all have succeeded": (verdict_input("a+ b+ c+", stop="enough"), (Cause.SUCCEEDED, True, "abc")),
    "one has failed, and one is gone": (verdict_input("b-", "ab"), (Cause.FAILED, False, "b")),
    "an echo, and one is gone: has it reported?": (verdict_input("a~", "ab"), ("recheck", "c")),
    "an echo, and one is gone": (verdict_input("a~", "ab", checked="c"), (Cause.LOST, False, "c")),
    "one has failed, and no restarts are left": (verdict_input("b-", restarts=3), (Cause.FAILED, False, "b")),
}  # fmt: skip


@pytest.mark.parametrize(("known", "expected"), CASES.values(), ids=CASES.keys())
def test_when_a_round_ends(known: VerdictInput, expected: tuple[Any, ...]) -> None:
    assert kind(decide_verdict(known, 101.0)) == expected


def test_the_verdict_on_a_last_failure_says_that_it_may_be_the_end() -> None:
    ruling = decide_verdict(verdict_input("b-", restarts=3), 101.0)
    assert isinstance(ruling, Verdict)
    assert ruling.why == (
        "b.1 failed: boom; no restarts are left, unless a member turns out to be lost"
    )


def test_a_failure_that_cannot_be_mended_ends_the_job_at_once_whoever_reported_first() -> None:
    ends = [failed("a", "a peer is gone"), failed("b", "no module named x", fatal=True)]
    ruling = decide_verdict(reported(ends), 101.0)
    assert isinstance(ruling, Verdict)
    assert (ruling.final, ruling.job_failure) == (True, ends[1].job_failure)
    assert "no module named x; starting again cannot help" in ruling.why


def reported(ends: list[Report], **others: Any) -> VerdictInput:
    return replace(verdict_input(**others), reports=RoundReports.of(MEMBERS, ends))


def failed(name: str, why: str = "boom", *, fatal: bool = False, **fields: Any) -> Report:
    told = job_failure(why, fatal=fatal, label=name, **fields)
    return report(name, ReportKind.FAILED, job_failure=told)


@pytest.mark.parametrize(
    ("ends", "first"),
    [
        ([failed("c"), failed("a")], "c"),
        ([failed("a"), failed("c")], "a"),
        ([failed("a", **ECHO), failed("c")], "c"),
        ([failed("b", **ECHO), failed("a", **ECHO)], "b"),
        ([failed("a"), failed("b", fatal=True)], "b"),
        ([failed("x"), failed("b")], "b"),
        ([report("b", ReportKind.FAILED), failed("a")], "b"),
    ],
    ids=[
        "the ledger's order",
        "not the ranks'",
        "an echo is overruled",
        "only echoes",
        "no restart can help",
        "no member",
        "without a word",
    ],
)
def test_the_verdict_tells_the_first_failure_that_the_ledger_took(
    ends: list[Report], first: str
) -> None:
    ruling = decide_verdict(reported(ends, restarts=3), 102.0)
    assert isinstance(ruling, Verdict)
    (told,) = [end for end in ends if end.node == f"{first}.1"]
    assert (ruling.nodes, ruling.job_failure) == ((told.node,), told.job_failure)


HEARING = {
    "others may say more": ([failed("a", **ECHO)], "abc", 102.0),
    "also if one has": ([failed("a", **ECHO), failed("b", **ECHO)], "abc", 102.0),
    "the cause is known": ([failed("a", **ECHO), failed("c")], "abc", None),
    "everybody has spoken": ([failed(n, **ECHO) for n in "abc"], "abc", None),
    "who has not is gone after it succeeded": (
        [failed("a", **ECHO), failed("b", **ECHO), report("c", ReportKind.SUCCEEDED)],
        "ab",
        None,
    ),
    "no echo": ([failed("a")], "abc", None),
    "no restart can help": ([failed("a", fatal=True, **ECHO)], "abc", None),
}


@pytest.mark.parametrize(("ends", "living", "until"), HEARING.values(), ids=HEARING.keys())
def test_an_echo_ends_the_round_only_after_its_cause_had_time_to_be_told(
    ends: list[Report], living: str, until: float | None
) -> None:
    known = reported(ends, living=living)
    found = decide_verdict(known, 101.9)
    assert (found.until if isinstance(found, NotYet) else None) == until
    assert isinstance(decide_verdict(known, 102.0), Verdict)


def test_without_a_budget_of_its_own_a_job_never_fails_for_good() -> None:
    known = verdict_input("b-", restarts=99, parameters=rules(1, 4, max_restarts=None))
    assert kind(decide_verdict(known, 101.0)) == (Cause.FAILED, False, "b")
