"""Who is in the next round, when it is sealed, in which order, and what it has cost: rules 3, 4 and
7.
"""

from __future__ import annotations

from typing import Any

import pytest

from llutil.rendezvous.protocol.presence import Presence
from llutil.rendezvous.protocol.records import Assignment, Cause, Member
from llutil.rendezvous.protocol.run_history import RunHistory
from llutil.rendezvous.protocol.seal_decision import (
    Incompatible,
    NoRoundFollows,
    NotYet,
    Seal,
    SealInput,
    decide_seal,
    restarts_after,
)
from tests.support.rendezvous_values import marker, member, round_of, rules, verdict

FOREVER = float("inf")


def seal_input(
    here: str,
    *,
    least: int = 2,
    most: int = 3,
    last: Assignment | None = None,
    cause: Cause = Cause.LOST,
    backs: str = "",
    quorum_since: float | None = 100.0,
    **others: Any,
) -> SealInput:
    """Members are the letters of ``here``, in order of arrival; the first one leads."""
    log = RunHistory(last, verdict(cause, last.stage) if last else None)
    members = others.pop("members", [member(name) for name in here])
    back = frozenset(f"{name}.1" for name in backs)
    values: dict[str, Any] = {
        "me": f"{here[0]}.1",
        "parameters": rules(least, most),
        "log": log,
        "presence": Presence(tuple(members), log.busy, back),
        "quorum_since": quorum_since,
        "ended_since": 100.0,
    }
    return SealInput(**(values | others))


def names(decision: object) -> str:
    assert isinstance(decision, Seal), decision
    return "".join(seat.name for seat in decision.seats)


WHEN = {
    # what the leader knows, now, and what it decides: the ranks' names, or until when it holds
    "too few, for ever": (seal_input("a", quorum_since=None), 900.0, FOREVER),
    "enough, and the last call begins": (seal_input("ab"), 100.0, 130.0),
    "the last call is not over": (seal_input("ab"), 129.9, 130.0),
    "the last call is over": (seal_input("ab"), 130.0, "ab"),
    "full at once": (seal_input("abc"), 100.0, "abc"),
    "beyond full: the first to arrive": (seal_input("abcd"), 100.0, "abc"),
    "all survivors are back": (seal_input("ab", last=round_of("abc"), backs="ab"), 100.0, "ab"),
    "all survivors are back, and strangers": (
        seal_input("abx", most=4, last=round_of("abc"), backs="ab"),
        100.0,
        "abx",
    ),
    "a survivor is still away": (seal_input("abc", last=round_of("abc"), backs="ab"), 100.0, 130.0),
    "a survivor is away for too long": (
        seal_input("abc", last=round_of("abc"), backs="ab"),
        130.0,
        "ab",
    ),
    "strangers fill the round, and a survivor's place is kept": (
        seal_input("abxy", last=round_of("ab"), backs="a"),
        100.0,
        130.0,
    ),
    "but not for ever": (seal_input("abxy", last=round_of("ab"), backs="a"), 130.0, "axy"),
    "no survivor is left: as in the beginning": (
        seal_input("xy", last=round_of("ab")),
        100.0,
        130.0,
    ),
    "survivors alone are too few": (
        seal_input("a", last=round_of("ab"), backs="a", quorum_since=None),
        500.0,
        FOREVER,
    ),
    "last members come before strangers": (
        seal_input("axb", most=2, last=round_of("ab"), backs="ab"),
        100.0,
        "ab",
    ),
    "the leader has workers yet": (seal_input("axy", last=round_of("ab")), 500.0, FOREVER),
}


@pytest.mark.parametrize(("known", "now", "expected"), WHEN.values(), ids=WHEN.keys())
def test_when_a_round_is_sealed(known: SealInput, now: float, expected: str | float) -> None:
    decision = decide_seal(known, now)
    if isinstance(expected, str):
        assert names(decision) == expected
    else:
        assert isinstance(decision, NotYet)
        assert decision.until == expected


def test_after_a_failure_the_seal_waits_for_a_member_that_may_be_lost() -> None:
    shape = rules(1, 3, last_call=1.0, lease_ttl=10.0)
    known = seal_input("ab", parameters=shape, last=round_of("ab"), cause=Cause.FAILED, backs="a")
    assert decide_seal(known, 102.0) == NotYet(
        115.0, "last call, 1 of 3 nodes are here; still stopping workers: b.1"
    )
    decision = decide_seal(known, 115.0)
    assert names(decision) == "a"
    assert isinstance(decision, Seal)
    assert (decision.restarts, decision.away) == (1, ("b.1",))


LAST_FAILURE = {
    # members, who reported to be back, now, and what follows: the end, or until when it holds
    "all are back": ("abc", "abc", 100.0, "end"),
    "one is slow to stop its workers, or dead": ("abc", "ab", 114.9, 115.0),
    "one is slow for longer than a lease": ("abc", "ab", 115.0, "end"),
    "the leader itself has workers yet": ("abc", "bc", 105.0, 115.0),
    "one was lost": ("ab", "ab", 100.0, "ab"),
    "all are back, and a stranger waits": ("abcx", "abc", 100.0, "end"),
}


@pytest.mark.parametrize(
    ("here", "backs", "now", "expected"), LAST_FAILURE.values(), ids=LAST_FAILURE.keys()
)
def test_a_failure_that_no_restart_is_left_for_ends_the_job_once_all_are_back(
    here: str, backs: str, now: float, expected: str | float
) -> None:
    last = round_of("abc", restarts=3)
    decision = decide_seal(
        seal_input(here, most=4, last=last, cause=Cause.FAILED, backs=backs), now
    )
    match decision:
        case NoRoundFollows(why):
            assert (expected, why) == ("end", "all 3 restarts are used up")
        case NotYet(until, _):
            assert expected == until
        case Seal(restarts=restarts):
            assert (names(decision), restarts) == (expected, 3)
        case _:
            pytest.fail(f"{decision}")


TORCHS_AGENTS = {
    # a round of a, b, c: who is here, who has succeeded, at least how many, and what follows
    "who succeeded has left, and too few are left": ("b", "ac", 2, "end"),
    "it has not left yet": ("ab", "a", 3, "end"),
    "the lost one may come back": ("b", "a", 2, "wait"),
    "enough are left": ("bc", "a", 2, "bc"),
    "a stranger takes the place": ("bx", "ac", 2, "bx"),
    "one is enough": ("b", "ac", 1, "b"),
    "none of the round is left: it is another job": ("x", "ac", 2, "wait"),
    "nobody has succeeded": ("b", "", 2, "wait"),
}


@pytest.mark.parametrize(
    ("here", "done", "least", "expected"), TORCHS_AGENTS.values(), ids=TORCHS_AGENTS.keys()
)
def test_no_round_follows_if_too_few_run_again(
    here: str, done: str, least: int, expected: str
) -> None:
    few = sum(name not in done for name in here) < least
    known = seal_input(
        here,
        least=least,
        last=round_of("abc"),
        backs="".join(name for name in here if name not in done),
        me=f"{here[-1]}.1",
        done={f"{name}.1" for name in done},
        quorum_since=None if few else 0.0,
    )
    match decide_seal(known, 100.0):
        case NoRoundFollows(why):
            assert expected == "end"
            assert "had succeeded, and so" in why
        case NotYet():
            assert expected == "wait"
        case decision:
            assert names(decision) == expected


def _indexed(order: dict[str, int | None]) -> list[Member]:
    return [member(name, index=index) for name, index in order.items()]


RANKS = {
    "by arrival": ({"c": None, "a": None, "b": None}, None, "cab"),
    "by preferred index": ({"c": 2, "a": 1, "b": 0}, None, "bac"),
    "an index comes before none": ({"a": None, "b": 7}, None, "ba"),
    "the same index, by arrival": ({"b": 1, "a": 1}, None, "ba"),
    "by the last round": ({"a": None, "b": None, "c": None}, "cba", "cba"),
    "the last round before arrival": ({"x": None, "a": None, "b": None}, "ba", "bax"),
    "an index before the last round": ({"a": 1, "b": 0}, "ab", "ba"),
}


@pytest.mark.parametrize(("arrived", "last", "expected"), RANKS.values(), ids=RANKS.keys())
def test_ranks_are_stable(arrived: dict[str, int | None], last: str | None, expected: str) -> None:
    here = "".join(arrived)
    known = seal_input(
        here,
        most=len(here),
        members=_indexed(arrived),
        last=round_of(last) if last else None,
        backs=here,
    )
    assert names(decide_seal(known, 130.0)) == expected


def test_a_node_that_comes_back_under_a_new_identity_finds_its_rank_again() -> None:
    back = [member("b"), member("c"), member("a", node="a.2")]
    known = seal_input("bca", members=back, last=round_of("abc"), backs="bc")
    assert names(decide_seal(known, 100.0)) == "abc"


def test_a_loopback_address_is_refused_once_members_are_on_two_hosts() -> None:
    here = [member("a", address="127.0.0.1"), member("b"), member("c")]
    decision = decide_seal(seal_input("abc", members=here), 100.0)
    assert isinstance(decision, Incompatible)
    assert "node 'a' on host 'a' offers the loopback address '127.0.0.1'" in decision.why
    assert "set local_addr on 'a'" in decision.why


@pytest.mark.parametrize("address", ["127.0.0.1", "localhost", "::1", "[::1]"])
def test_on_one_host_a_loopback_address_is_fine(address: str) -> None:
    here = [member(name, address=address, host="one") for name in "abc"]
    assert names(decide_seal(seal_input("abc", members=here), 100.0)) == "abc"


def test_a_name_is_not_taken_for_a_loopback_address() -> None:
    here = [member(name, address=f"{name}.example") for name in "abc"]
    assert names(decide_seal(seal_input("abc", members=here), 100.0)) == "abc"


CHARGES = {
    "a failure, and all came back": (Cause.FAILED, "ab", 3),
    "a failure, and one was lost": (Cause.FAILED, "a", 2),
    "a failure, and strangers came": (Cause.FAILED, "abx", 3),
    "a loss": (Cause.LOST, "a", 2),
    "a loss, of which nothing was lost after all": (Cause.LOST, "ab", 2),
    "newcomers": (Cause.GROWN, "abx", 2),
    "nobody of the round is left": (Cause.FAILED, "xy", 0),
    "nobody of the round is left after a loss": (Cause.LOST, "xy", 0),
}


@pytest.mark.parametrize(("cause", "living", "expected"), CHARGES.values(), ids=CHARGES.keys())
def test_only_a_failure_of_a_whole_round_is_charged(
    cause: Cause, living: str, expected: int
) -> None:
    log = RunHistory(round_of("ab", restarts=2), verdict(cause))
    assert restarts_after(log, {f"{name}.1" for name in living}) == expected


def test_a_new_generation_has_a_fresh_budget() -> None:
    log = RunHistory(
        round_of("ab", restarts=2), verdict(Cause.FAILED, final=True), marker(Cause.FAILED)
    )
    assert restarts_after(log, {"a.1", "b.1"}) == 0
