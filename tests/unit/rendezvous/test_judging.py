"""When a round ends, and how: rules 5, 7 and 8."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from llutil.errors import FailureClass
from llutil.rendezvous.judging import Bench, Recheck, Ruling, judge
from llutil.rendezvous.records import Cause, Report, Say
from llutil.rendezvous.seating import Hold
from tests.nodes import failure, report, round_of, rules

FOREVER = float("inf")


def bench(
    ends: str = "", living: str = "abc", *, restarts: int = 0, checked: str = "", **others: Any
) -> Bench:
    """A round of a, b and c, of at most four; ``ends`` like "a+ b-" for success and failure."""
    reports: dict[str, Report] = {}
    for end in ends.split():
        name, well = end[0], end[1] == "+"
        say, why = (Say.SUCCEEDED, "") if well else (Say.FAILED, "boom")
        reports[f"{name}.1"] = report(name, say, why=why)
    nodes = [f"{name}.1" for name in living]
    values: dict[str, Any] = {
        "rules": rules(1, 4),
        "round": round_of("abc", restarts=restarts),
        "ends": reports,
        "stop": None,
        "living": frozenset(nodes),
        "ready": [node for node in nodes if node > "c.1"],
        "checked": frozenset(f"{name}.1" for name in checked),
        "failed_since": 100.0 if "-" in ends else None,
    }
    return Bench(**(values | others))


def kind(decision: Ruling | Recheck | Hold) -> tuple[Any, ...]:
    match decision:
        case Ruling(cause=cause, final=final, nodes=nodes):
            return (cause, final, "".join(node[0] for node in nodes))
        case Recheck(nodes=nodes):
            return ("recheck", "".join(sorted(node[0] for node in nodes)))
        case Hold(until=until):
            return ("hold", until)


FULL = rules(1, 3)
CASES = {
    "all goes well": (bench(), ("hold", FOREVER)),
    "some have succeeded": (bench("a+ b+"), ("hold", FOREVER)),
    "all have succeeded": (bench("a+ b+ c+"), (Cause.SUCCEEDED, True, "abc")),
    "all have succeeded, and some are gone": (bench("a+ b+ c+", ""), (Cause.SUCCEEDED, True, "abc")),
    "one has failed": (bench("b-"), (Cause.FAILED, False, "b")),
    "one has failed, others have succeeded": (bench("a+ b- c+"), (Cause.FAILED, False, "b")),
    "one is gone; has it reported?": (bench("", "ab"), ("recheck", "c")),
    "one is gone, and has not reported": (bench("", "ab", checked="c"), (Cause.LOST, False, "c")),
    "one is gone, and had succeeded": (bench("c+", "ab"), ("hold", FOREVER)),
    "two are gone, one after success": (bench("c+", "a", checked="b"), (Cause.LOST, False, "b")),
    "another is gone since the last check": (bench("", "a", checked="c"), ("recheck", "bc")),
    "one came; has anybody succeeded?": (bench("", "abcx"), ("recheck", "x")),
    "one came": (bench("", "abcx", checked="x"), (Cause.GROWN, False, "x")),
    "one came after a success": (bench("a+", "abcx", checked="x"), ("hold", FOREVER)),
    "one came, and all places are taken": (bench("", "abcx", checked="x", rules=FULL), ("hold", FOREVER)),
    "one came and has workers yet": (bench("", "abcx", checked="x", ready=()), ("hold", FOREVER)),
    "one came and one is gone": (bench("", "abx", checked="cx"), (Cause.LOST, False, "c")),
    "a stop": (bench(stop="enough"), (Cause.STOPPED, True, "")),
    "a stop and a failure": (bench("a-", stop="enough"), (Cause.STOPPED, True, "")),
    "a stop after all have succeeded": (bench("a+ b+ c+", stop="enough"), (Cause.SUCCEEDED, True, "abc")),
    "the last failure, just now": (bench("b-", restarts=3), ("hold", 110.0)),
    "the last failure, and one is gone": (bench("b-", "ab", restarts=3), ("recheck", "c")),
    "the last failure was a loss": (bench("b-", "ab", restarts=3, checked="c"), (Cause.LOST, False, "c")),
    "the last failure, and who failed is gone": (bench("b-", "ac", restarts=3), (Cause.LOST, False, "b")),
    "the last failure, and one is gone after success": (bench("b- c+", "ab", restarts=3), ("hold", 110.0)),
}  # fmt: skip


@pytest.mark.parametrize(("known", "expected"), CASES.values(), ids=CASES.keys())
def test_when_a_round_ends(known: Bench, expected: tuple[Any, ...]) -> None:
    assert kind(judge(known, 105.0)) == expected


def test_the_last_failure_ends_the_job_after_one_lease() -> None:
    assert kind(judge(bench("b-", restarts=3), 109.9)) == ("hold", 110.0)
    ruling = judge(bench("b-", restarts=3), 110.0)
    assert isinstance(ruling, Ruling)
    assert kind(ruling) == (Cause.FAILED, True, "b")
    assert ruling.why == "b.1 failed: boom; all 3 restarts are used up"


def test_a_failure_that_cannot_be_mended_ends_the_job_at_once_whoever_reported_first() -> None:
    ends = {
        "a.1": report("a", Say.FAILED, why="a peer is gone"),
        "b.1": report(
            "b",
            Say.FAILED,
            why="no module named x",
            fatal=True,
            failure_class=FailureClass.BAD_CONFIGURATION,
        ),
    }
    ruling = judge(replace(bench(), ends=ends), 100.0)
    assert isinstance(ruling, Ruling)
    assert (ruling.final, ruling.failure_class) == (True, FailureClass.BAD_CONFIGURATION)
    assert "no module named x; starting again cannot help" in ruling.why


def failed(name: str, **fields: Any) -> Report:
    given = failure(reason=f"of {name}", **fields)
    return report(name, Say.FAILED, failure=given, failure_class=given.failure_class)


ECHO = {"echo": True, "failure_class": FailureClass.INFRASTRUCTURE}


@pytest.mark.parametrize(
    ("ends", "first"),
    [
        ([failed("c"), failed("a")], "c"),
        ([failed("a"), failed("c")], "a"),
        ([failed("a", **ECHO), failed("c")], "c"),
        ([failed("b", **ECHO), failed("a", **ECHO)], "b"),
        ([failed("a"), replace(failed("b"), fatal=True)], "b"),
        ([failed("x"), failed("b")], "b"),
        ([report("b", Say.FAILED), failed("a")], "b"),
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
    known = replace(bench(restarts=3), ends={end.node: end for end in ends}, failed_since=0.0)
    ruling = judge(known, 105.0)
    assert isinstance(ruling, Ruling)
    (told,) = [end for end in ends if end.node == f"{first}.1"]
    assert (ruling.nodes, ruling.failure) == ((told.node,), told.failure)
    assert ruling.failure_class is told.failure_class


def test_without_a_budget_of_its_own_a_job_never_fails_for_good() -> None:
    known = bench("b-", restarts=99, rules=rules(1, 4, max_restarts=None))
    assert kind(judge(known, 100.0)) == (Cause.FAILED, False, "b")
